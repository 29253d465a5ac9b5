"""YAML of settings: each key once, and no more than is written."""

from __future__ import annotations

from typing import Any

import yaml

# Settings, lists and values of one file, with every alias counted as what it stands for.
MOST_NODES = 100_000
_DEEPEST = 50


def parsed(text: str) -> Any:
    """The content of a YAML document.

    Raises:
        yaml.YAMLError: it is no YAML, has a key twice, a value that cannot be read, or aliases
            that stand for more than `MOST_NODES`; or it is nested too deep.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _count(root, {})
        return loader.construct_document(root)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deep") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        # Of PyYAML itself: dates that are none, numbers without digits.
        raise yaml.YAMLError(f"a value in it cannot be read: {error}") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise yaml.YAMLError(f"the key {key.value!r:.60} is there twice")
                keys.add(key.value)
        return super().construct_mapping(node, deep)

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        # What follows takes a time that grows with the square of the depth.
        if self.flow_level >= _DEEPEST:
            raise yaml.YAMLError("it is nested too deep")
        super().fetch_flow_collection_start(token)


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Nodes in a tree, aliases expanded. Raises YAMLError for too many, or a node in itself."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MOST_NODES  # until it is counted: a node that holds itself has no end
    below: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        below = [each for pair in node.value for each in pair]
    elif isinstance(node, yaml.SequenceNode):
        below = node.value
    count = 1 + sum(_count(each, known) for each in below)
    if count > MOST_NODES:
        raise yaml.YAMLError(f"it stands for more than {MOST_NODES:,} settings and values")
    known[id(node)] = count
    return count
