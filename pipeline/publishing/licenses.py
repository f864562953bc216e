"""May these rows be published? Rules by licence and by corpus, each refusal with the name that lifts it."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

NO_REHOSTING = {
    "common_voice": "Common Voice as distributed now may not be hosted elsewhere, and codes decode to its recordings",
}


@dataclass(frozen=True, slots=True)
class License:
    """What one licence asks of who passes the material on."""

    id: str  # as rows carry it: an SPDX identifier, or LicenseRef-…
    hub_id: str  # as a Hub card spells it; "other" where it knows none
    name: str
    url: str
    commercial: bool = True
    derivatives: bool = True


def _creative_commons() -> Iterable[License]:
    hub = {"BY": "2.0 2.5 3.0 4.0", "BY-SA": "3.0 4.0", "BY-NC": "2.0 3.0 4.0", "BY-NC-SA": "2.0 3.0 4.0"}
    hub |= {"BY-ND": "4.0", "BY-NC-ND": "3.0 4.0"}
    for kind, known in hub.items():
        for version in ("1.0", "2.0", "2.5", "3.0", "4.0"):
            slug = f"cc-{kind.lower()}-{version}"
            yield License(
                id=f"CC-{kind}-{version}",
                hub_id=slug if version in known.split() else "other",
                name=f"CC {kind} {version}",
                url=f"https://creativecommons.org/licenses/{kind.lower()}/{version}/",
                commercial="NC" not in kind,
                derivatives="ND" not in kind,
            )


LICENSES: dict[str, License] = {
    license.id: license
    for license in (
        *_creative_commons(),
        License("CC0-1.0", "cc0-1.0", "CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
        License(
            "LicenseRef-PublicDomain", "other", "public domain", "https://creativecommons.org/publicdomain/mark/1.0/"
        ),
        License(
            "LicenseRef-CMU-Arctic",
            "other",
            "CMU Arctic's own: free, its notice kept",
            "http://festvox.org/cmu_arctic/",
        ),
        License("PDDL-1.0", "pddl", "PDDL 1.0", "https://opendatacommons.org/licenses/pddl/1-0/"),
        License("ODC-By-1.0", "odc-by", "ODC-By 1.0", "https://opendatacommons.org/licenses/by/1-0/"),
        License("ODbL-1.0", "odbl", "ODbL 1.0", "https://opendatacommons.org/licenses/odbl/1-0/"),
        License("MIT", "mit", "MIT", "https://opensource.org/license/mit"),
        License("Apache-2.0", "apache-2.0", "Apache 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
        License("BSD-2-Clause", "bsd-2-clause", "BSD 2-Clause", "https://opensource.org/license/bsd-2-clause"),
        License("BSD-3-Clause", "bsd-3-clause", "BSD 3-Clause", "https://opensource.org/license/bsd-3-clause"),
        License("Unlicense", "unlicense", "Unlicense", "https://unlicense.org/"),
    )
}
BY_FOLDED = {license.id.lower(): license for license in LICENSES.values()}


def find_license(id: str) -> License:
    """The licence of an identifier, in any case and with spaces for hyphens, as people write `CC BY 4.0`.

    One that is not in the table knows its id alone.
    """
    return BY_FOLDED.get(re.sub(r"[\s_]+", "-", id.strip().lower())) or License(id, "other", id, "")


def slug(id: str) -> str:
    """A licence as part of a config's name: lower case, only a-z, 0-9, '-' and '.'."""
    return re.sub(r"[^a-z0-9.-]+", "-", id.lower()).strip("-.") or "unnamed"


def refusals(parts: Iterable[tuple[str, str | None]], allowed: Collection[str]) -> list[str]:
    """Why (corpus, licence) parts may not be published, one sentence each; [] if they all may.

    `allowed` holds the names that lift a refusal: `corpus:common_voice`, `non-commercial:emilia`,
    `no-derivatives:corpus`, `license:LicenseRef-Mine`.
    """
    found = []
    for corpus, id in sorted(set(parts), key=lambda part: (part[0], part[1] or "")):
        if not id:
            found.append(f"{corpus}: rows without a licence; give theirs with --license ID, or leave them out")
            continue
        license = find_license(id)
        reasons = {}
        if corpus in NO_REHOSTING:
            reasons[f"corpus:{corpus}"] = NO_REHOSTING[corpus]
        if not license.commercial:
            reasons[f"non-commercial:{corpus}"] = f"its rows under {id} are for non-commercial use only"
        if not license.derivatives:
            reasons[f"no-derivatives:{corpus}"] = f"its rows under {id} may not be passed on in another form"
        if license.id not in LICENSES:
            reasons[f"license:{id}"] = f"{id} is no licence known to allow publication"
        found += [
            f"{corpus}: {reason}; if you may publish it all the same, say --allow {name}"
            for name, reason in reasons.items()
            if name not in allowed
        ]
    return found
