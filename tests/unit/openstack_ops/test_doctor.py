"""The doctor's rules over answers that a test cloud cannot give: quotas, denied rights, a list in pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from beamdesk.adapters.openstack import doctor_volumes
from beamdesk.adapters.openstack.config import Boot, Firewall, GuestApi, Homes, OpenStackConfig, Place
from beamdesk.adapters.openstack.doctor import Check, Finding, Outcome, Verdict, examine, ok, wrong
from beamdesk.adapters.openstack.doctor_access import clock, rights, services
from beamdesk.adapters.openstack.doctor_compute import nova_services, quota, wanted
from beamdesk.adapters.openstack.doctor_host import CHECKS as HOST_CHECKS
from beamdesk.adapters.openstack.doctor_network import metadata, user_data
from beamdesk.adapters.openstack.doctor_probe import Access, Denied, Probe
from beamdesk.adapters.openstack.doctor_run import CLOUD_CHECKS, settings_finding
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.system import SystemClock
from beamdesk.cli.openstack import report
from beamdesk.domain.errors import CloudUnavailable

pytestmark = pytest.mark.anyio
ALL = frozenset({"compute", "image", "network", "placement", "identity"})
SMALL = {"id": "f1", "name": "small", "vcpus": 2, "ram": 4096, "disk": 10, "extra_specs": {"beamdesk:title_en": "Small"}}


class Answers:
    """A probe that gives prepared answers by path; what was not prepared is empty."""

    def __init__(self, answers: Mapping[str, Any], *, services: frozenset[str] = ALL, roles: tuple[str, ...] = ("member",)) -> None:
        self.place = Place("main", "beamdesk", "desktops")
        self.config = OpenStackConfig((self.place,), GuestApi("https://guest.example"), firewall=Firewall(("10.0.0.1/32",)))
        self.clock = SystemClock()
        self._answers = answers
        self.ahead: dict[Service, float | None] = {}
        self._access = Access("beamdesk", "desktops", "p1", roles, "password", services, 0.0)

    async def get(
        self,
        service: Service,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        admin: bool = False,
        version: str | None = None,
    ) -> Any:
        answer = self._answers.get(path, {})
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def listing(
        self, service: Service, path: str, key: str, *, query: Mapping[str, str] | None = None, admin: bool = False
    ) -> list[Any]:
        return list((await self.get(service, path)).get(key, []))

    async def access(self) -> Access:
        return self._access

    async def microversions(self) -> str:
        return "2.79"

    async def clocks(self) -> Mapping[Service, float | None]:
        return self.ahead


def limits(**absolute: int) -> dict[str, Any]:
    return {"/limits": {"limits": {"absolute": absolute}}, "/flavors/detail": {"flavors": [SMALL]}}


@pytest.mark.parametrize(
    ("absolute", "verdict"),
    [
        ({}, Verdict.OK),
        ({"maxTotalInstances": -1, "maxTotalCores": -1, "maxTotalRAMSize": -1}, Verdict.OK),
        ({"maxTotalInstances": 10, "totalInstancesUsed": 10}, Verdict.WRONG),
        ({"maxTotalCores": 20, "totalCoresUsed": 19}, Verdict.WRONG),
        ({"maxTotalRAMSize": 51200, "totalRAMUsed": 47105}, Verdict.WRONG),
        ({"maxTotalCores": 20, "totalCoresUsed": 18}, Verdict.WARNING),
        ({"maxTotalInstances": 10, "totalInstancesUsed": 1}, Verdict.WARNING),
        ({"maxTotalInstances": 100, "totalInstancesUsed": 1, "maxTotalCores": 200, "totalCoresUsed": 2}, Verdict.OK),
    ],
)
async def test_the_quota_has_room_for_the_smallest_desktop(absolute: dict[str, int], verdict: Verdict) -> None:
    assert (await quota(Answers(limits(**absolute)))).verdict is verdict


@pytest.mark.parametrize(
    ("roles", "verdict"),
    [(("member", "reader"), Verdict.OK), (("admin", "member"), Verdict.WARNING), (("reader",), Verdict.WRONG), ((), Verdict.WRONG)],
)
async def test_least_rights(roles: tuple[str, ...], verdict: Verdict) -> None:
    assert (await rights(Answers({}, roles=roles))).verdict is verdict


async def test_a_catalogue_without_a_needed_service() -> None:
    assert (await services(Answers({}, services=ALL - {"network"}))).facts == ("not in the catalogue: Neutron (network)",)


async def test_a_catalogue_without_placement_is_a_warning() -> None:
    assert (await services(Answers({}, services=ALL - {"placement"}))).verdict is Verdict.WARNING


async def test_no_conductor() -> None:
    up = [{"binary": name, "state": "up", "status": "enabled", "host": "c"} for name in ("nova-scheduler", "nova-compute")]
    outcome = await nova_services(Answers({"/os-services": {"services": up}}))
    assert outcome.verdict is Verdict.WRONG
    assert "nova-conductor: 0 of 0 up and enabled" in outcome.facts


async def test_dhcp_tells_the_way_to_the_metadata_service() -> None:
    probe = Answers({"/networks": {"networks": [{"id": "n"}]}, "/subnets": {"subnets": [{"id": "s", "enable_dhcp": True}]}})
    probe.config = OpenStackConfig((probe.place,), GuestApi("https://guest.example"), config_drive=False)
    assert (await user_data(probe)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("agents", "verdict"),
    [
        ([], Verdict.UNKNOWN),
        ([{"agent_type": "L3 agent", "host": "n1", "alive": True}], Verdict.UNKNOWN),
        ([{"agent_type": "Metadata agent", "host": "n1", "alive": True}], Verdict.OK),
        ([{"agent_type": "OVN Metadata agent", "host": f"n{n}", "alive": n == 2} for n in (1, 2)], Verdict.OK),
        ([{"agent_type": "Metadata agent", "host": "n1", "alive": False}], Verdict.WRONG),
    ],
)
async def test_a_stopped_desktop_needs_somebody_who_serves_metadata(agents: list[dict[str, object]], verdict: Verdict) -> None:
    outcome = await metadata(Answers({"/agents": {"agents": agents}}))
    assert outcome.verdict is verdict
    assert verdict is Verdict.OK or "a stopped desktop cannot start again" in outcome.facts[0]


def test_what_placement_is_asked_for() -> None:
    specs = {
        "resources:VGPU": "1",
        "trait:CUSTOM_GPU_MODEL_A40": "required",
        "trait:COMPUTE_STATUS_DISABLED": "forbidden",
        "hw:x": "y",
    }
    assert wanted({**SMALL, "extra_specs": specs}) == {
        "resources": "VCPU:2,MEMORY_MB:4096,VGPU:1",
        "required": "!COMPUTE_STATUS_DISABLED,CUSTOM_GPU_MODEL_A40",
    }


def test_numbered_groups_are_left_to_nova() -> None:
    assert wanted({**SMALL, "extra_specs": {"resources1:VGPU": "1"}}) is None


async def run(*checks: Any) -> list[Finding]:
    return [one async for one in examine(checks, Answers({}))]


async def fine(_: Probe) -> Outcome:
    return ok()


async def bad(_: Probe) -> Outcome:
    return wrong("mend it", "broken")


async def denied(_: Probe) -> Outcome:
    raise Denied("not for you")


async def silent(_: Probe) -> Outcome:
    raise CloudUnavailable("Nova does not answer.")


async def test_what_the_account_may_not_see_is_unknown() -> None:
    assert [(one.verdict, one.failed) for one in await run(Check("a", "A", denied))] == [(Verdict.UNKNOWN, False)]


async def test_a_silent_service_is_wrong() -> None:
    found = await run(Check("a", "A", silent, blocks=True), Check("b", "B", fine))
    assert [one.verdict for one in found] == [Verdict.WRONG, Verdict.OK]
    assert found[0].facts == ("Nova does not answer.",)
    assert found[0].stops_desktops


async def test_nothing_is_examined_after_a_first_check_that_failed() -> None:
    assert [one.id for one in await run(Check("a", "A", bad, first=True), Check("b", "B", fine))] == ["a"]


async def test_everything_is_examined_after_any_other() -> None:
    assert [one.id for one in await run(Check("a", "A", bad), Check("b", "B", fine))] == ["a", "b"]


async def test_the_report_says_verdict_facts_and_remedy() -> None:
    found = await run(Check("a.b", "It is", fine), Check("c.d", "It was", bad))
    assert list(report(found)) == [
        "main:",
        "  ok       It is  [a.b]",
        "  WRONG    It was  [c.d]",
        "             broken",
        "           > mend it",
        "1 ok, 1 wrong",
    ]


async def test_facts_from_a_cloud_do_not_drive_the_terminal() -> None:
    async def hostile(_: Probe) -> Outcome:
        return ok("name\x1b]0;x\x07")

    assert "\x1b" not in "\n".join(report(await run(Check("a", "A", hostile))))


def test_every_check_has_an_id_of_its_own_and_is_in_the_reference() -> None:
    ids = [check.id for check in (*CLOUD_CHECKS, *HOST_CHECKS)] + [settings_finding(None).id]
    assert len(set(ids)) == len(ids)
    page = (Path(__file__).parents[3] / "docs/reference/doctor.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z]+\.[a-z-]+)` \|", page, re.MULTILINE) == [ids[-1], *ids[:-1]]


def test_the_reference_says_what_stops_a_start() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/doctor.md").read_text(encoding="utf-8")
    stops = re.findall(r"^\| `([a-z]+\.[a-z-]+)` \| yes \|", page, re.MULTILINE)
    assert stops == ["settings.openstack", *(check.id for check in CLOUD_CHECKS if check.blocks)]


@pytest.mark.parametrize(
    ("ahead", "verdict", "fact"),
    [
        ({Service.COMPUTE: 0.4, Service.NETWORK: None}, Verdict.OK, "Neutron does not tell its time"),
        ({Service.COMPUTE: 0.4, Service.NETWORK: 12.0}, Verdict.WARNING, "Neutron is 12 s ahead"),
        ({Service.COMPUTE: -600.0, Service.NETWORK: 0.1}, Verdict.WRONG, "Nova is 600 s behind"),
    ],
)
async def test_every_service_has_a_clock(ahead: dict[Service, float | None], verdict: Verdict, fact: str) -> None:
    probe = Answers({})
    probe.ahead = ahead
    outcome = await clock(probe)
    assert outcome.verdict is verdict
    assert fact in outcome.facts


def with_volumes(answers: Mapping[str, Any], boot: Boot = Boot.IMAGE) -> Answers:
    probe = Answers(answers)
    probe.config = replace(probe.config, homes=Homes(enabled=True, gib=50, volume_type="fast"), boot=boot)
    return probe


async def test_without_volumes_cinder_is_not_asked() -> None:
    probe = Answers({path: CloudUnavailable("nobody is there") for path in ("/types", "/limits", "/volumes/detail")})
    assert {(await check.run(probe)).verdict for check in doctor_volumes.CHECKS} == {Verdict.OK}


@pytest.mark.parametrize(
    ("absolute", "boot", "verdict"),
    [
        ({}, Boot.IMAGE, Verdict.OK),
        ({"maxTotalVolumes": -1, "maxTotalVolumeGigabytes": -1}, Boot.IMAGE, Verdict.OK),
        ({"maxTotalVolumes": 9, "totalVolumesUsed": 9}, Boot.IMAGE, Verdict.WRONG),
        ({"maxTotalVolumes": 10, "totalVolumesUsed": 9}, Boot.IMAGE, Verdict.WARNING),
        ({"maxTotalVolumes": 10, "totalVolumesUsed": 9}, Boot.VOLUME, Verdict.WRONG),
        ({"maxTotalVolumeGigabytes": 1000, "totalGigabytesUsed": 951}, Boot.IMAGE, Verdict.WRONG),
        ({"maxTotalVolumeGigabytes": 1000, "totalGigabytesUsed": 450}, Boot.IMAGE, Verdict.OK),
        ({"maxTotalVolumeGigabytes": 1000, "totalGigabytesUsed": 450}, Boot.VOLUME, Verdict.WARNING),
    ],
)
async def test_the_quota_of_volumes(absolute: dict[str, int], boot: Boot, verdict: Verdict) -> None:
    assert (await doctor_volumes.quota(with_volumes(limits(**absolute), boot))).verdict is verdict


@pytest.mark.parametrize(("names", "verdict"), [(["fast", "slow"], Verdict.OK), (["slow"], Verdict.MISSING), ([], Verdict.MISSING)])
async def test_the_volume_type_of_the_settings(names: list[str], verdict: Verdict) -> None:
    found = await doctor_volumes.types(with_volumes({"/types": {"volume_types": [{"name": name} for name in names]}}))
    assert found.verdict is verdict


@pytest.mark.parametrize(
    ("status", "minutes", "ours", "named"),
    [
        ("creating", 11, True, True),
        ("creating", 9, True, False),
        ("deleting", 11, True, True),
        ("error_deleting", 0, True, True),
        ("reserved", 600, True, False),  # kept for a shelved server
        ("in-use", 600, True, False),
        ("creating", 11, False, False),
    ],
)
async def test_volumes_that_wait_for_an_operator(status: str, minutes: int, ours: bool, named: bool) -> None:
    since = (datetime.now(UTC) - timedelta(minutes=minutes)).replace(tzinfo=None).isoformat()
    marks = {"beamdesk_deployment": "d"} if ours else {}
    record = {"id": "v1", "name": "home", "status": status, "created_at": since, "updated_at": None, "metadata": marks}
    found = await doctor_volumes.stuck(with_volumes({"/volumes/detail": {"volumes": [record]}}))
    assert (found.verdict, bool(found.remedy)) == ((Verdict.WARNING, True) if named else (Verdict.OK, False))
    assert [fact.split()[0] for fact in found.facts] == ["v1"] * named
