"""Talk to an MLflow server: bounded time, no telemetry, errors in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lrf_core.errors import CredentialError
from lrf_core.redaction import one_line, register_pair
from lrf_core.registry.base import RegistryError, UnreachableRegistryError
from lrf_core.secrets.credentials import password_in, token_in

# The client reads these whenever it makes a request, and telemetry when it is imported. Its own
# defaults wait for minutes for a server that is down, and print to where commands answer.
for _name, _value in {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}.items():
    os.environ.setdefault(_name, _value)

from google.protobuf.json_format import ParseError  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402
from mlflow.utils.credentials import read_mlflow_creds  # noqa: E402
from requests.exceptions import RequestException, SSLError  # noqa: E402

_USER, _PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105 the name of it
_REFUSED = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")


@dataclass(frozen=True)
class Connection:
    """The address of an MLflow server, and its client."""

    address: str
    client: MlflowClient = field(repr=False)

    @classmethod
    def open(cls, address: str) -> Connection:
        """Credentials are MLflow's own: MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD, or its
        credentials file; MLFLOW_TRACKING_SERVER_CERT_PATH names the CA to trust.

        Raises:
            RegistryError: a token or password that cannot be sent.
        """
        try:
            _clean_credentials()
        except CredentialError as error:
            raise RegistryError(str(error)) from None
        return cls(address, MlflowClient(tracking_uri=address, registry_uri=address))

    @contextmanager
    def explained(self) -> Iterator[MlflowClient]:
        """The client, with its errors said in one line.

        Raises:
            UnreachableRegistryError: no answer, or a server error.
            RegistryError: the credentials or the request were refused, or this is no MLflow.
        """
        try:
            yield self.client
        except MlflowException as error:
            raise self._refusal(error) from None
        except (RequestException, OSError) as error:
            raise self._unreachable(error) from None
        except ParseError:
            raise self._foreign() from None
        except ImportError as error:
            # The client writes artifacts by itself where the server does not do it for it.
            raise RegistryError(
                f"the MLflow server at {self.address} keeps artifacts where this machine lacks "
                f"the client for ({error}); pip install it, or start the server with "
                "--artifacts-destination"
            ) from None

    def _refusal(self, error: MlflowException) -> RegistryError:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, RequestException):
            return self._unreachable(cause)
        status, said = error.get_http_status_code(), one_line(error.message)
        if error.error_code in _REFUSED or status in (401, 403) or "error code 401" in said:
            return RegistryError(
                f"the MLflow server at {self.address} refuses the credentials; set "
                "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        if "valid JSON" in said or "error code 404" in said:
            return self._foreign()
        kind = UnreachableRegistryError if status >= 500 else RegistryError
        return kind(f"the MLflow server at {self.address} answered {status}: {said}; see its log")

    def _foreign(self) -> RegistryError:
        return RegistryError(
            f"{self.address} does not answer as an MLflow server does; check the address, and that "
            "no login page is in the way"
        )

    def _unreachable(self, error: Exception) -> RegistryError:
        if isinstance(error, SSLError):
            return RegistryError(
                f"the certificate of {self.address} is not trusted; name the CA's file in "
                "MLFLOW_TRACKING_SERVER_CERT_PATH"
            )
        # Inside of it is what happened the last time, without the addresses of all attempts.
        reason = getattr(error.args[0] if error.args else None, "reason", None) or error
        return UnreachableRegistryError(
            f"cannot reach the MLflow server at {self.address} ({one_line(reason)}); check the "
            "address and run it again"
        )


def _clean_credentials() -> None:
    """The client reads them by itself, and would quote what it cannot send."""
    cleaned = {
        _TOKEN: token_in(_TOKEN),
        _PASSWORD: password_in(_PASSWORD),
        _USER: os.environ.get(_USER, "").strip("\r\n"),
    }
    os.environ.update({name: value for name, value in cleaned.items() if value})
    found = read_mlflow_creds()
    if found.password:
        register_pair(found.username or "", found.password)
