"""YAML read strictly, remembering where everything was: duplicate keys are refused and every path has its line.

Only plain data is built (no tags that construct objects), and nothing that refers to itself.
"""

from dataclasses import dataclass, field
from typing import Any

import yaml

from edgecache.config.options import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong in the text itself."""

    path: Path
    line: int
    expected: str


class YamlError(Exception):
    """Text that is not YAML: nothing in it can be read."""

    def __init__(self, line: int, detail: str) -> None:
        super().__init__(detail)
        self.line = line
        self.detail = detail


@dataclass(slots=True)
class Document:
    """A parsed file."""

    data: Any
    findings: list[Finding] = field(default_factory=list)
    root: yaml.Node | None = None

    def line(self, path: Path) -> int | None:
        """The line of the nearest thing to `path` that is there, counted from 1."""
        node, line = self.root, None
        for step in path:
            found = None
            if isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    if key.value == step:
                        found, line = value, key.start_mark.line + 1
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                found = node.value[step]
                line = found.start_mark.line + 1
            if found is None:
                break
            node = found
        return line


def parse(text: str) -> Document:
    """Raises `YamlError`."""
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        document = Document(None, root=root)
        if root is not None:
            document.data = _Builder(loader, document.findings).build(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        detail = " ".join(part for part in (error.problem, error.context) if part)
        raise YamlError(mark.line + 1 if mark else 1, detail) from None
    except yaml.reader.ReaderError as error:
        raise YamlError(text.count("\n", 0, error.position) + 1, f"{error.reason} (#x{error.character:x})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(1, str(error)) from None
    except RecursionError:
        raise YamlError(1, "nested too deeply") from None
    else:
        return document
    finally:
        if loader is not None:
            loader.dispose()


class _Builder:
    """Turns nodes into plain data. Anchored nodes are built once and shared, so that aliases cannot multiply."""

    def __init__(self, loader: yaml.SafeLoader, findings: list[Finding]) -> None:
        self._loader = loader
        self._findings = findings
        self._done: dict[yaml.Node, Any] = {}
        self._under_way: set[yaml.Node] = set()

    def build(self, node: yaml.Node, path: Path) -> Any:
        if node in self._done:
            return self._done[node]
        if node in self._under_way:
            raise yaml.MarkedYAMLError(problem="it refers to itself", problem_mark=node.start_mark)
        self._under_way.add(node)
        built: Any
        if isinstance(node, yaml.MappingNode):
            built = self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            built = [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        else:
            built = self._loader.construct_object(node)
        self._under_way.discard(node)
        self._done[node] = built
        return built

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a plain word", problem_mark=key.start_mark)
            line = key.start_mark.line + 1
            if key.value in seen and key.value != "<<":
                expected = f"each key once; it is also on line {seen[key.value]}"
                self._findings.append(Finding((*path, key.value), line, expected))
            seen.setdefault(key.value, line)
        self._loader.flatten_mapping(node)  # "<<" puts what is merged in front, so that what is written here wins
        return {key.value: self.build(value, (*path, key.value)) for key, value in node.value}
