from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from kserve_api import _merged

from lrf_core.serving.plan import merge_patch, patched

values = st.recursive(
    st.booleans() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.sampled_from("xyz"), below),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("pqrs"), values, max_size=4)


@given(objects, objects)
def test_a_patch_turns_one_object_into_the_other(current: Any, target: Any) -> None:
    kept = copy.deepcopy(current)
    patch = merge_patch(current, target)
    assert patched(current, patch) == target
    assert _merged(current, patch) == target  # as the RFC has it
    assert current == kept


@given(objects)
def test_nothing_to_change_is_an_empty_patch(current: Any) -> None:
    assert merge_patch(current, copy.deepcopy(current)) == {}
