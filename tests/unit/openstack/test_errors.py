"""Every error of the cloud's services as one of ours: class, words, and what the service said."""

from __future__ import annotations

import json

import pytest

from beamdesk.adapters.openstack.errors import Problem, Service, explain_fault, quote, read_problem, refusal, remedy
from beamdesk.domain.errors import CloudError, CloudFull, CloudRefused, CloudUnavailable, NotSupported
from beamdesk.domain.server import Remedy

NOVA, NEUTRON, CINDER, GLANCE, KEYSTONE = Service.COMPUTE, Service.NETWORK, Service.VOLUME, Service.IMAGE, Service.IDENTITY

# what the services of the 2025 and 2026 releases answer, word for word
CASES = [
    (NOVA, 403, "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances", CloudFull, "quota"),
    (NOVA, 403, "Quota exceeded for cores, ram: Requested 8, 8192, but already used 16, 16384 of 20, 20480 cores, ram", CloudFull, "quota"),
    (CINDER, 413, "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota.", CloudFull, "quota"),
    (CINDER, 413, "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded for quota 'volumes'.", CloudFull, "quota"),
    (NEUTRON, 409, "Quota exceeded for resources: ['port'].", CloudFull, "quota"),
    (NOVA, 403, "Policy doesn't allow os_compute_api:servers:create to be performed.", CloudRefused, "policy forbids"),
    (NEUTRON, 403, "(rule:create_port) is disallowed by policy", CloudRefused, "policy forbids"),
    (NOVA, 400, "Can not find requested image", CloudRefused, "image is gone"),
    (NOVA, 400, "Image 7ac8a3d2-8c2d-4a4f-9f6e-2f7cf0d15f2c could not be found.", CloudRefused, "image is gone"),
    (NOVA, 400, "Image 7ac8a3d2 is not active.", CloudRefused, "image is gone"),
    (NOVA, 400, "Flavor's disk is too small for requested image. Flavor disk is 1 bytes, image is 2 bytes.", CloudRefused, "larger size"),
    (NOVA, 400, "Invalid flavorRef provided.", CloudRefused, "size is gone"),
    (NOVA, 409, "Port 6b8e is still in use.", CloudError, "port is in use"),
    (NOVA, 400, "Port id 6b8e could not be found.", CloudError, "port is gone"),
    (NOVA, 400, "Network 4e could not be found.", CloudRefused, "network for desktops"),
    (NOVA, 400, "The requested availability zone is not available", CloudRefused, "availability_zone"),
    (NOVA, 400, "Block Device Mapping is Invalid: failed to get volume 12.", CloudError, "volume cannot be attached"),
    (NOVA, 409, "Instance 12 is locked", CloudRefused, "locked"),
    (NOVA, 409, "Cannot 'stop' instance 12 while it is in task_state image_snapshot", CloudError, "busy"),
    (NOVA, 429, "This request was rate-limited.", CloudError, "fewer requests"),
    (NOVA, 406, "Version 2.79 is not supported by the API.", NotSupported, "older than"),
    (NEUTRON, 409, "No more IP addresses available on network 4e.", CloudFull, "no free address"),
    (NEUTRON, 404, "Network 4e could not be found.", CloudRefused, "network for desktops"),
    (NEUTRON, 404, "Security group 9 does not exist", CloudError, "security group"),
    (CINDER, 404, "Volume type with name fast could not be found.", CloudRefused, "volume type"),
    (CINDER, 400, "Invalid volume: Volume status must be available or error or error_restoring", CloudRefused, "in use"),
    (KEYSTONE, 401, "The request you have made requires authentication.", CloudError, "credentials"),
    (NOVA, 500, "Unexpected API Error.", CloudUnavailable, "may have happened"),
    (NOVA, 503, "", CloudUnavailable, "may have happened"),
    (NOVA, 418, "teapot", CloudRefused, "refused the request"),
]  # fmt: skip


@pytest.mark.parametrize(("service", "status", "said", "error", "words"), CASES)
def test_an_error_has_its_class_its_words_and_what_was_said(
    service: Service, status: int, said: str, error: type[CloudError], words: str
) -> None:
    refused = refusal(Problem(service, status, "", said), "make the server")
    assert type(refused) is error
    assert words.lower() in refused.message.lower()
    assert said[:60] in refused.message
    assert refused.context["status"] == status


def test_a_full_quota_is_waited_for_and_a_missing_image_is_not() -> None:
    assert refusal(Problem(NOVA, 403, "", "Quota exceeded for instances"), "").retryable
    assert not refusal(Problem(NOVA, 400, "", "Can not find requested image"), "").retryable


@pytest.mark.parametrize(
    ("service", "body", "kind", "said"),
    [
        (NOVA, {"badRequest": {"code": 400, "message": "Can not find requested image"}}, "400", "Can not find requested image"),
        (NEUTRON, {"NeutronError": {"type": "MacAddressInUse", "message": "in use", "detail": ""}}, "MacAddressInUse", "in use"),
        (KEYSTONE, {"error": {"code": 401, "title": "Unauthorized", "message": "no"}}, "401", "no"),
        (Service.PLACEMENT, {"errors": [{"status": 409, "title": "Conflict", "detail": "busy", "code": "placement.undefined_code"}]},
         "placement.undefined_code", "busy"),
        (GLANCE, {"message": "No image found", "code": "404 Not Found"}, "404 Not Found", "No image found"),
    ],
)  # fmt: skip
def test_every_service_form_of_an_error_is_read(service: Service, body: object, kind: str, said: str) -> None:
    problem = read_problem(service, 400, json.dumps(body))
    assert (problem.kind, problem.message) == (kind, said)


def test_a_page_of_a_proxy_becomes_one_short_line() -> None:
    problem = read_problem(NOVA, 502, "<html><body><h1>502</h1>\n<p>Bad\x1b[31m Gateway</p>" + "x" * 5000 + "</html>")
    assert problem.message.startswith("502 Bad [31m Gateway")
    assert len(problem.message) <= 300
    assert "\x1b" not in problem.message


@pytest.mark.parametrize("body", ["", "[]", "null", '"text"', "{}", '{"error": null}', '{"a": {"message": {"b": 1}}}', "{" * 500])
def test_any_body_is_survived(body: str) -> None:
    assert refusal(read_problem(NOVA, 400, body), "make the server").message


def test_an_internal_error_of_nova_is_known_by_its_class() -> None:
    said = "Unexpected API Error. Please report this.\n<class 'oslo_db.exception.DBConnectionError'>"
    assert (
        read_problem(NOVA, 500, json.dumps({"computeFault": {"code": 500, "message": said}})).kind
        == "oslo_db.exception.DBConnectionError"
    )


AGAIN, LATER, WAIT, PERSON = Remedy
FAULTS = [
    ("No valid host was found. There are not enough hosts available.", "No host of the cloud can take", LATER),
    ("No valid host was found. ", "No host of the cloud can take", LATER),
    ("Exceeded maximum number of retries. Exhausted all hosts available for retrying build failures", "Every host that had room", AGAIN),
    ("Build of instance 1 aborted: Failed to allocate the network(s), not rescheduling.", "network could not be connected", AGAIN),
    ("Insufficient compute resources: Claim pci failed.", "no longer had room", AGAIN),
    ("Port 5 is still in use.", "port is in use", AGAIN),
    ("Image 3 is unacceptable: bad", "could not be read from Glance", PERSON),
    ("Volume 5 did not finish being created even after we waited 60 seconds", "volume could not be attached", AGAIN),
    ("Quota exceeded for instances: Requested 1, but already used 2 of 2 instances", "quota of the project", WAIT),
    ("No more IP addresses available on network 4e.", "no free address", WAIT),
    ("Timed out waiting for a reply to message ID 5a", "The server failed", AGAIN),
    ("Flavor's disk is too small for requested image.", "too small for the image", PERSON),
    ("[Errno 28] No space left on device", "host's disk is full", AGAIN),
    ("something new", "The server failed", AGAIN),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "words", "helps"), FAULTS)
def test_a_fault_is_explained_and_quoted_and_has_a_remedy(fault: str, words: str, helps: Remedy) -> None:
    told = explain_fault(fault)
    assert words in told
    assert f"(Nova: {fault.strip()}" in told
    assert remedy(fault) is helps


def test_a_quote_is_cut() -> None:
    assert quote("a" * 400, 10) == "aaaaaaaaa…"
