"""Any section `cluster` that is valid, for hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lrf_core.spec.cluster import STAGE_NAMES

names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
paths = st.from_regex(r"(/[a-z0-9]{1,8}){1,3}", fullmatch=True).filter(
    lambda path: path != "/scratch"
)
values = st.from_regex(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,10}[A-Za-z0-9])?", fullmatch=True)
labels = st.dictionaries(
    st.from_regex(r"([a-z]{1,8}\.[a-z]{2,4}/)?[a-z]{1,12}", fullmatch=True), values, max_size=2
)
cpus = st.one_of(
    st.integers(1, 64),
    st.floats(0.001, 64).map(lambda cores: f"{cores:.3f}").filter(lambda text: text[-1] != "0"),
    st.integers(1, 64_000).map(lambda cores: f"{cores}m"),
)
memories = st.builds("{}{}".format, st.integers(1, 512), st.sampled_from(("Mi", "Gi", "M", "G")))
tolerations = st.one_of(
    st.just({"operator": "Exists"}),
    st.builds(
        lambda key, value, effect: {"key": key, "value": value, "effect": effect},
        names,
        values,
        st.sampled_from(("NoSchedule", "PreferNoSchedule", "NoExecute")),
    ),
    st.builds(
        lambda key, seconds: {
            "key": key,
            "operator": "Exists",
            "effect": "NoExecute",
            "seconds": seconds,
        },
        names,
        st.integers(0, 3600),
    ),
)
placement = {
    "node_selector": labels,
    "tolerations": st.lists(tolerations, max_size=2),
    "timeout": st.integers(1, 100_000),
}
stages = st.fixed_dictionaries(
    {},
    optional={
        "cpu": cpus,
        "memory": memories,
        "gpus": st.integers(0, 8),
        "gpu": st.sampled_from(("nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.5gb")),
        "scratch": memories,
        **placement,
    },
)
variables = st.from_regex(r"MY_[A-J]{1,6}", fullmatch=True)
references = st.builds(
    "{}/{}".format, names, st.from_regex(r"[-._a-zA-Z0-9]{1,12}", fullmatch=True)
)


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, Any]:
    """Settings as YAML would hold them; names of volumes, paths and variables occur once."""
    volumes = draw(st.lists(names.filter(lambda name: name != "scratch"), max_size=5, unique=True))
    mounts = draw(st.lists(paths, min_size=5, max_size=5, unique=True))
    given: dict[str, dict[str, str]] = {"secret_files": {}, "config_maps": {}, "claims": {}}
    for name, path in zip(volumes, mounts, strict=False):
        given[draw(st.sampled_from(sorted(given)))][name] = path
    settings = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "image": st.sampled_from(("lrf:1", "registry.example:5000/team/lrf@sha256:0a")),
                "pull_policy": st.sampled_from(("Always", "IfNotPresent", "Never")),
                "pull_secrets": st.lists(names, max_size=2),
                "stages": st.dictionaries(st.sampled_from(STAGE_NAMES), stages, max_size=3),
                "env": st.dictionaries(variables, st.text("ab c:/$={}", max_size=8), max_size=2),
                "secrets": st.dictionaries(variables.map("S_{}".format), references, max_size=2),
                "retries": st.fixed_dictionaries(
                    {}, optional={"count": st.integers(0, 10), "wait": st.integers(1, 3600)}
                ),
                "pushgateway": st.just("http://pushgateway:9091"),
                **placement,
            },
        )
    )
    return {**settings, **given}
