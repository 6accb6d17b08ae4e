"""Every error of Nova, Neutron, Glance, Cinder, Placement and Keystone as one of ours, with its true cause in words.

Pure: status, headers and body in, error out. A sentence says what happened and what to do next; what the cloud said is quoted,
shortened to one line. Rules are tried in order; what no rule knows is still quoted. 5xx after a write is `CloudUnavailable`: it
may have happened. A full quota is waited for, because somebody else's stop frees it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from beamdesk.domain.errors import CloudError, CloudFull, CloudRefused, CloudUnavailable, NotSupported
from beamdesk.domain.server import Remedy

QUOTE_LENGTH = 300
_NOVA_ERROR = re.compile(r"<class '(?P<name>[\w.]+)'>")


class Service(StrEnum):
    """A service, by its official type."""

    COMPUTE = "compute"
    NETWORK = "network"
    IMAGE = "image"
    VOLUME = "block-storage"
    PLACEMENT = "placement"
    IDENTITY = "identity"


NAMES = {
    Service.COMPUTE: "Nova",
    Service.NETWORK: "Neutron",
    Service.IMAGE: "Glance",
    Service.VOLUME: "Cinder",
    Service.PLACEMENT: "Placement",
    Service.IDENTITY: "Keystone",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What an answer said went wrong. ``kind``: the service's own name of the error (`MacAddressInUse`), where it has one."""

    service: Service
    status: int
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class _Rule:
    """``says`` is searched in kind and message. ``error``: the class of ours; ``words``: what happened and what to do."""

    services: frozenset[Service]
    statuses: frozenset[int]
    says: str
    error: type[CloudError]
    words: str

    def fits(self, problem: Problem) -> bool:
        return (
            problem.service in self.services
            and problem.status in self.statuses
            and re.search(self.says, f"{problem.kind} {problem.message}", re.IGNORECASE) is not None
        )


_ALL = frozenset(Service)
_NOVA = frozenset({Service.COMPUTE})
_NEUTRON = frozenset({Service.NETWORK})
_CINDER = frozenset({Service.VOLUME})
_REFUSALS = frozenset(range(400, 500))

_RULES = (
    _Rule(
        _ALL,
        frozenset({401}),
        "",
        CloudError,
        "OpenStack does not accept Beamdesk's credentials: they are wrong, expired or revoked. An operator must renew them.",
    ),
    _Rule(
        _ALL,
        frozenset({406}),
        "",
        NotSupported,
        "This cloud's API is older than Beamdesk needs. An operator must update it.",
    ),
    _Rule(
        _ALL,
        frozenset({403, 409, 413}),
        r"quota|over.?limit|limitexceeded|maximum number of",
        CloudFull,
        "The quota of the project in OpenStack is used up. Stop or delete desktops there, or ask an operator for more.",
    ),
    _Rule(
        _ALL,
        frozenset({403}),
        "",
        CloudRefused,
        "OpenStack's policy forbids this to Beamdesk's account. An operator must give its role the right, or choose another way.",
    ),
    _Rule(
        _ALL,
        frozenset({429, 413}),
        "",
        CloudError,
        "OpenStack asks for fewer requests at a time. Beamdesk tries again by itself.",
    ),
    _Rule(
        _NOVA,
        frozenset({400, 404}),
        r"image.*(not find|not found|could not be found|not active|not acceptable|is unacceptable)|can not find requested image|"
        r"invalid imageref",
        CloudRefused,
        "The image is gone from OpenStack or not usable. Choose another image, or ask an operator to upload it again.",
    ),
    _Rule(
        _NOVA,
        frozenset({400}),
        r"flavor's (disk|memory) is too small",
        CloudRefused,
        "The image needs more than this size has. Choose a larger size.",
    ),
    _Rule(
        _NOVA,
        frozenset({400, 404}),
        r"flavor.*(could not be found|not found)|invalid flavorref",
        CloudRefused,
        "The size is gone from OpenStack. Choose another size.",
    ),
    _Rule(
        _NOVA,
        frozenset({400, 409}),
        r"port .*(still in use|in use)|portinuse",
        CloudError,
        "The desktop's network port is in use by another server. Beamdesk looks again.",
    ),
    _Rule(
        _NOVA,
        frozenset({400, 404}),
        r"port.*(could not be found|not found|not usable)",
        CloudError,
        "The desktop's network port is gone. Beamdesk makes a new one.",
    ),
    _Rule(
        _NOVA,
        frozenset({400, 404}),
        r"network.*(could not be found|not found|requires a subnet)",
        CloudRefused,
        "The network for desktops is gone from OpenStack or has no subnet. An operator must repair it.",
    ),
    _Rule(
        _NOVA,
        frozenset({400}),
        r"availability zone",
        CloudRefused,
        "The availability zone in the settings does not exist. An operator must correct openstack.availability_zone.",
    ),
    _Rule(
        _NOVA,
        frozenset({400, 404}),
        r"volume|block device",
        CloudError,
        "The desktop's volume cannot be attached now. Beamdesk tries again; an operator can look at it in Cinder.",
    ),
    _Rule(
        _NOVA,
        frozenset({409}),
        r"locked",
        CloudRefused,
        "An operator has locked the server in OpenStack. Ask them to unlock it.",
    ),
    _Rule(
        _NOVA,
        frozenset({409}),
        "",
        CloudError,
        "The server is busy with something else in OpenStack. Beamdesk tries again.",
    ),
    _Rule(
        _NEUTRON,
        frozenset({409}),
        r"IpAddressGenerationFailure|no more ip addresses",
        CloudFull,
        "The network for desktops has no free address. Delete desktops there, or ask an operator for a larger subnet.",
    ),
    _Rule(
        _NEUTRON,
        frozenset({400, 404}),
        r"network|subnet",
        CloudRefused,
        "The network for desktops is gone from OpenStack or not usable. An operator must repair it.",
    ),
    _Rule(
        _NEUTRON,
        frozenset({404}),
        r"security.?group",
        CloudError,
        "A security group of the desktops is gone. Beamdesk makes it again.",
    ),
    _Rule(
        _CINDER,
        frozenset({400, 404}),
        r"volume.?type",
        CloudRefused,
        "The volume type in the settings does not exist in Cinder. An operator must correct it.",
    ),
    _Rule(
        _CINDER,
        frozenset({400, 409}),
        r"in.?use|attached|status must be|detach",
        CloudRefused,
        "The volume is in use. Delete the desktop's server first.",
    ),
    _Rule(_ALL, frozenset({409}), "", CloudError, "OpenStack is busy with this resource. Beamdesk tries again."),
    _Rule(_ALL, frozenset({408}), "", CloudUnavailable, "OpenStack did not get the request in time. Beamdesk tries again."),
    _Rule(_ALL, _REFUSALS, "", CloudRefused, "OpenStack refused the request. An operator finds the cause in what it said."),
)


def quote(text: object, length: int = QUOTE_LENGTH) -> str:
    """Return foreign text as one short printable line."""
    line = "".join(char if char.isprintable() else " " for char in str(text))
    line = re.sub(r"\s+", " ", re.sub(r"<[^<>]{1,80}>", " ", line)).strip()
    return line if len(line) <= length else line[: length - 1] + "…"


def read_problem(service: Service, status: int, body: str) -> Problem:
    """Read an error's body: each service has its own form, a proxy before it another."""
    try:
        data: object = json.loads(body)
    except ValueError:
        return Problem(service, status, "", quote(body))
    for candidate in _candidates(data):
        message = candidate.get("message") or candidate.get("detail") or candidate.get("title")
        if message:
            kind = candidate.get("type") or candidate.get("code") or ""
            named = _NOVA_ERROR.search(str(message))
            return Problem(service, status, named["name"] if named else str(kind), quote(message))
    return Problem(service, status, "", quote(body))


def _candidates(data: object) -> list[Mapping[str, object]]:
    if not isinstance(data, dict):
        return []
    found: list[Mapping[str, object]] = [one for one in data.values() if isinstance(one, dict)]
    errors = data.get("errors")
    if isinstance(errors, list):
        found += [one for one in errors if isinstance(one, dict)]
    return [*found, data]


def refusal(problem: Problem, doing: str) -> CloudError:
    """Return the error for an answer that is one. ``doing``: what was asked for, as in "make the server"."""
    name, status = NAMES[problem.service], problem.status
    if status >= 500:
        error: type[CloudError] = CloudUnavailable
        words = f"{name} failed ({status}) when asked to {doing}; it may have happened. Beamdesk looks again."
    else:
        rule = next((rule for rule in _RULES if rule.fits(problem)), None)
        error = rule.error if rule else CloudError
        words = rule.words if rule else f"{name} gave an answer ({status}) that Beamdesk does not expect."
    text = f"{words} ({name}: {problem.message})" if problem.message else words
    return error(text, service=name, status=status, kind=problem.kind)


NOT_SENT = "NotSent"
"""The kind of an error after which nothing can have happened: there was no connection on which to ask."""


def unreachable(service: Service, doing: str, cause: str, kind: str = "") -> CloudUnavailable:
    """Return the error for no answer at all."""
    name = NAMES[service]
    return CloudUnavailable(
        f"{name} did not answer when asked to {doing}. Beamdesk tries again; an operator can check its API. ({quote(cause, 160)})",
        service=name,
        kind=kind,
    )


def too_old(found: str, needed: str) -> NotSupported:
    """Return the error for a Nova without the microversion that the driver needs."""
    return NotSupported(
        f"This cloud's Nova offers API microversions up to {found or 'none'}; Beamdesk needs {needed} (OpenStack Queens or newer).",
        service=NAMES[Service.COMPUTE],
    )


_AGAIN, _LATER, _WAIT, _PERSON = Remedy
_FAULTS = (
    # As right after an outage; `why` may know better.
    (r"no valid host", "No host of the cloud can take this desktop now.", _LATER),
    (r"exceeded maximum number of retries|exhausted all hosts", "Every host that had room failed to start the desktop.", _AGAIN),
    (r"insufficient compute resources|claim .*failed", "The host that was chosen no longer had room.", _AGAIN),
    (r"pci device|pci alias|pcidevice", "The host could not give the GPU that the desktop asks for.", _AGAIN),
    (r"port .*in use", "The desktop's network port is in use by another server.", _AGAIN),
    (r"port .*(not found|could not be found)", "The desktop's network port was deleted while the server was made.", _AGAIN),
    (r"no more ip|ip addresses? available", "The network for desktops has no free address.", _WAIT),
    (r"allocate the network|virtual interface creation failed|vif", "The network could not be connected to the server.", _AGAIN),
    (r"image .*(not found|could not be found|unacceptable)", "The image could not be read from Glance.", _PERSON),
    (r"volume|block device", "The desktop's volume could not be attached.", _AGAIN),
    (r"quota", "The quota of the project in OpenStack is used up.", _WAIT),
    (r"disk.*too small", "The disk of this size is too small for the image.", _PERSON),
    (r"no space left", "The host's disk is full.", _AGAIN),
)
"""What Nova says of a server in ERROR, what it means, and what helps. Anything else may have passed: it is tried again."""


def _fault(message: str) -> tuple[str, Remedy]:
    found = (one for one in _FAULTS if re.search(one[0], message, re.IGNORECASE))
    _, words, remedy = next(found, ("", "The server failed in OpenStack.", _AGAIN))
    return words, remedy


def explain_fault(message: str, more: str = "") -> str:
    """Return the words for a server in ERROR. ``more``: what an operator's rights told besides (which filter, which resource)."""
    said = quote(message)
    return " ".join(part for part in (_fault(said)[0], more, f"(Nova: {said})" if said else "") if part)


def remedy(message: str) -> Remedy:
    """Return what helps a server in ERROR."""
    return _fault(quote(message))[1]
