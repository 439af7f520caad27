"""What many rows have in common and the page has once, at its end."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.report.html.markup import Html, join, tag


@dataclass(frozen=True)
class SpecText:
    """A spec file as it is written; `name` from the folder specs/ on, or alone."""

    name: str
    text: str


@dataclass
class Appendix:
    specs: dict[SpecText, str] = field(default_factory=dict)
    """Text -> its id on the page."""
    environments: dict[tuple[tuple[str, str], ...], str] = field(default_factory=dict)
    """Packages and versions -> id."""

    def spec(self, text: SpecText) -> str:
        return self.specs.setdefault(text, f"shared-{len(self.specs) + 1}")

    def environment(self, packages: Mapping[str, object]) -> str:
        key = tuple(sorted((name, str(version)) for name, version in packages.items()))
        return self.environments.setdefault(key, f"environment-{len(self.environments) + 1}")

    def render(self) -> Html:
        specs = [
            tag("details", tag("summary", tag("code", text.name)),
                tag("div", text.text, class_="text code", tabindex=0, role="region",
                    aria_label=f"Text of {text.name}"), id=id_)
            for text, id_ in self.specs.items()
        ]  # fmt: skip
        environments = [
            tag("details", tag("summary", f"Environment {number}: {len(packages)} packages"),
                tag("p", ", ".join(f"{name} {version}" for name, version in packages), class_="text"),
                id=id_)
            for number, (packages, id_) in enumerate(self.environments.items(), start=1)
        ]  # fmt: skip
        parts = [("Specs that rows extend", specs), ("Packages that stages ran with", environments)]
        return join([[tag("h3", title), entries] for title, entries in parts if entries])
