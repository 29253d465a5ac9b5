"""The proxy that breaks things, and the server that is killed, are themselves what they say."""

from __future__ import annotations

import pytest
import urllib3
from faulty_proxy import Fault, FaultyProxy
from minio import Minio
from minio.error import S3Error
from seaweed import Seaweed, SeaweedProcess

CONTENT = bytes(range(256)) * 64


@pytest.fixture
def client(faulty_proxy: FaultyProxy, seaweed: Seaweed) -> Minio:
    """One that never tries again."""
    return Minio(
        faulty_proxy.endpoint.removeprefix("http://"),
        seaweed.access_key,
        seaweed.secret_key,
        secure=False,
        region="us-east-1",
        http_client=urllib3.PoolManager(retries=urllib3.Retry(False), timeout=10),
    )


def put(client: Minio, key: str) -> None:
    client._put_object("releases", key, CONTENT)


def get(client: Minio, key: str) -> bytes:
    response = client.get_object("releases", key)
    try:
        return response.read()
    finally:
        response.close()


def test_without_a_fault_everything_passes(client: Minio, faulty_proxy: FaultyProxy) -> None:
    put(client, "proxy/whole")

    assert get(client, "proxy/whole") == CONTENT
    assert client.stat_object("releases", "proxy/whole").size == len(CONTENT)
    assert [name.object_name for name in client.list_objects("releases", "proxy/whole")]
    client.remove_object("releases", "proxy/whole")
    assert {request.fault for request in faulty_proxy.requests} == {None}


@pytest.mark.parametrize(
    ("fault", "arrives"),
    [
        (Fault.RESET, False),
        (Fault.HALF_REQUEST, False),
        (Fault.LOST_ANSWER, True),
    ],
)
def test_a_broken_connection_is_one_for_the_client(
    client: Minio, faulty_proxy: FaultyProxy, fault: Fault, arrives: bool
) -> None:
    key = f"proxy/{fault.name}"
    faulty_proxy.next(fault)
    with pytest.raises(urllib3.exceptions.HTTPError):
        put(client, key)
    found = [item.object_name for item in client.list_objects("releases", key)]
    assert found == ([key] if arrives else [])


@pytest.mark.parametrize(
    ("fault", "code", "arrives"),
    [
        (Fault.SERVER_ERROR, "InternalError", False),
        (Fault.SLOW_DOWN, "SlowDown", False),
        (Fault.LATE_ERROR, "InternalError", True),
    ],
)
def test_an_error_of_the_server_has_its_code(
    client: Minio, faulty_proxy: FaultyProxy, fault: Fault, code: str, arrives: bool
) -> None:
    key = f"proxy/{fault.name}"
    faulty_proxy.next(fault, method="PUT", path=fault.name)
    with pytest.raises(S3Error) as caught:
        put(client, key)
    assert caught.value.code == code
    assert bool(list(client.list_objects("releases", key))) is arrives


@pytest.mark.parametrize("fault", [Fault.HALF_ANSWER, Fault.RESET_IN_ANSWER])
def test_half_an_answer_is_noticed(client: Minio, faulty_proxy: FaultyProxy, fault: Fault) -> None:
    put(client, "proxy/half")
    faulty_proxy.next(fault, method="GET")
    with pytest.raises(urllib3.exceptions.HTTPError):
        get(client, "proxy/half")


def test_a_flipped_bit_is_one_bit(client: Minio, faulty_proxy: FaultyProxy) -> None:
    put(client, "proxy/bit")
    faulty_proxy.next(Fault.FLIPPED_BIT, method="GET")
    found = get(client, "proxy/bit")
    assert sum((a ^ b).bit_count() for a, b in zip(found, CONTENT, strict=True)) == 1


def test_a_body_that_changed_on_the_way_is_stored_as_it_came(
    client: Minio, faulty_proxy: FaultyProxy
) -> None:
    faulty_proxy.next(Fault.FLIPPED_REQUEST_BIT, method="PUT")
    put(client, "proxy/changed")  # SeaweedFS does not compare it with x-amz-content-sha256
    found = get(client, "proxy/changed")
    assert sum((a ^ b).bit_count() for a, b in zip(found, CONTENT, strict=True)) == 1


def test_a_killed_server_comes_back_with_its_objects(own_seaweed: SeaweedProcess) -> None:
    client = own_seaweed.server.client()
    client._put_object("releases", "kept", CONTENT)
    own_seaweed.kill()
    own_seaweed.start()
    assert get(client, "kept") == CONTENT
