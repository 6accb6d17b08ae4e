"""Which card counts as free when Nova and the records are asked, and what is done while the records are missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from beamdesk.plugins.nova.asked import read
from beamdesk.plugins.nova.engine import Engine, Verdict
from beamdesk.plugins.nova.fetch import Held, follow
from beamdesk.plugins.nova.journal import Journal
from beamdesk.plugins.nova.options import Fallback, InvalidOption, Options
from beamdesk.plugins.nova.seen import look, offers
from beamdesk.scheduling.cards import CardMode, CardState, equal_size_vgpu
from beamdesk.scheduling.wire import publish
from novakit import Site, card, flavor, host, pool, spec

OPTIONS = Options(api_url="https://beamdesk.example", credential_file="/nowhere", settle=60.0)
GPU, CPU = flavor(8, 32768, beamdesk__gpus="1"), flavor(8, 32768)


class Desk:
    """An engine beside a site; requests are numbered."""

    def __init__(self, site: Site, options: Options = OPTIONS, held: Any = "site") -> None:
        self.site, self.number = site, 0
        self.held: Held | None = site.held if held == "site" else held
        self.engine = Engine(options, SimpleNamespace(held=lambda: self.held), Journal("", 0), lambda: site.now)

    def ask(self, chosen: Any, devices: int = 0, **more: Any) -> Verdict:
        self.number += 1
        request = spec(self.number, chosen, devices, **more)
        states = self.site.offered(request)
        named = {one.host: offers(one) for one in states} if devices else {}
        return self.engine.judge(read(request), [look(one) for one in states], named)

    def free(self, name: str) -> int:
        """Return the CPU that the plugin takes for free."""
        table = self.engine._world.table
        return int(table.cpu_free[table.row[name]])

    def records(self, **states: CardState) -> None:
        """Have the records say something else of card 0 of some hosts, now."""
        facts = [
            replace(one, cards=(replace(one.cards[0], state=states[one.name]), *one.cards[1:])) if one.name in states else one
            for one in self.site.table.hosts
        ]
        self.held = follow(self.held, publish(Site(facts).table, self.site.now), self.site.now)

    def time(self, seconds: float, *, confirmed: bool = True) -> None:
        self.site.now += seconds
        if confirmed and self.held is not None:
            self.held = replace(self.held, asof=self.site.now)


def one_card() -> Site:
    return Site([host("cpu"), host("gpu", cards=(card(0),))])


def use_and_free(desk: Desk) -> None:
    """Have Nova give the card to a server that the records never see, and take it back."""
    state = desk.site.states["gpu"]
    pools, state.pools = state.pools, []
    desk.ask(CPU)
    state.pools = pools


def test_a_card_that_nova_holds_in_use_is_busy_whatever_the_records_say() -> None:
    desk = Desk(one_card())
    desk.site.states["gpu"].pools = []
    asked = read(spec(1, GPU, 1))
    verdict = desk.engine.judge(asked, [look(one) for one in desk.site.states.values()], {"gpu": (), "cpu": ()})
    assert dict(verdict.decision.refusals)["cards_busy"] == 1


def test_a_card_that_was_just_freed_is_not_lent_while_the_records_may_not_have_noticed() -> None:
    desk = Desk(one_card())
    use_and_free(desk)
    desk.time(5)
    assert desk.ask(GPU, 1).hosts == ()


def test_a_freed_card_is_lent_again_once_the_records_showed_it_dirty_and_then_free() -> None:
    desk = Desk(one_card())
    use_and_free(desk)
    desk.time(5)
    desk.records(gpu=CardState.DIRTY)
    assert desk.ask(GPU, 1).hosts == ()
    desk.time(5)
    desk.records(gpu=CardState.FREE)
    assert desk.ask(GPU, 1).hosts == ("gpu",)


def test_a_freed_card_is_lent_again_when_the_records_still_call_it_free_long_after() -> None:
    desk = Desk(one_card())
    use_and_free(desk)
    desk.ask(CPU)
    desk.time(59)
    assert desk.ask(GPU, 1).hosts == ()
    desk.time(2)
    assert desk.ask(GPU, 1).hosts == ("gpu",)


def test_records_that_noticed_the_use_are_believed_at_once_whenever_nova_frees_the_card() -> None:
    """Snapshots come and go between two requests; what they showed is not forgotten."""
    desk = Desk(one_card())
    state = desk.site.states["gpu"]
    pools, state.pools = state.pools, []
    desk.ask(CPU)
    desk.time(5)
    desk.records(gpu=CardState.USED)
    desk.records(gpu=CardState.DIRTY)
    desk.time(5)
    desk.records(gpu=CardState.FREE)
    state.pools = pools
    assert desk.ask(GPU, 1).hosts == ("gpu",)


def test_what_records_showed_before_the_use_vouches_for_nothing() -> None:
    desk = Desk(one_card())
    desk.records(gpu=CardState.DIRTY)
    desk.time(5)
    desk.records(gpu=CardState.FREE)
    desk.time(5)
    use_and_free(desk)
    desk.time(5)
    assert desk.ask(GPU, 1).hosts == ()


def test_time_alone_cleans_no_card_while_the_records_are_silent() -> None:
    desk = Desk(one_card(), replace(OPTIONS, gpu_fallback=Fallback.COUNT))
    use_and_free(desk)
    desk.ask(CPU)
    desk.time(3600, confirmed=False)
    verdict = desk.ask(GPU, 1)
    assert (verdict.source, verdict.hosts) == ("fallback-count", ())


def test_without_fresh_records_gpu_desktops_are_refused_and_cpu_desktops_stay_off_gpu_hosts() -> None:
    desk = Desk(one_card())
    assert desk.ask(GPU, 1).source == "records"
    desk.time(61, confirmed=False)
    refused = desk.ask(GPU, 1)
    assert (refused.source, refused.hosts) == ("fallback-refuse", ())
    assert dict(refused.decision.refusals)["stale"] == 1
    assert "too old" in refused.why
    assert desk.ask(CPU).hosts[0] == "cpu"


def test_the_records_are_back_and_gpu_desktops_go_on() -> None:
    desk = Desk(Site([host("gpu", cards=(card(0), card(1)))]))
    desk.time(61, confirmed=False)
    assert desk.ask(GPU, 1).hosts == ()
    desk.time(1)
    assert desk.ask(GPU, 1).hosts == ("gpu",)


def test_counting_lends_what_nova_holds_for_free_but_no_card_that_was_last_known_as_bad() -> None:
    site = Site([host("bad", cards=(card(0, state=CardState.FAILED),)), host("good", cards=(card(0),))])
    desk = Desk(site, replace(OPTIONS, gpu_fallback=Fallback.COUNT))
    desk.ask(CPU)
    desk.time(61, confirmed=False)
    verdict = desk.ask(GPU, 1)
    assert (verdict.source, verdict.hosts) == ("fallback-count", ("good",))


def test_counting_without_any_record_counts_devices_and_checks_nothing_else() -> None:
    desk = Desk(one_card(), replace(OPTIONS, gpu_fallback=Fallback.COUNT), held=None)
    assert desk.ask(flavor(8, 32768, beamdesk__gpu_memory_mib="99999"), 1).hosts == ("gpu",)


def test_without_any_record_cpu_desktops_still_prefer_hosts_without_gpus() -> None:
    site = Site([host("a-gpu", cards=(card(0),)), host("b-cpu")])
    assert Desk(site, held=None).ask(CPU).hosts[0] == "b-cpu"


def test_a_gpu_that_nobody_reports_makes_a_gpu_host_and_is_not_lent() -> None:
    site = Site([host("a"), host("b")])
    site.states["a"].pools = [pool("0000:99:00.0")]
    desk = Desk(site)
    assert desk.ask(CPU).hosts[0] == "b"
    assert desk.ask(GPU, 1).hosts == ()


def test_a_host_that_only_nova_knows_takes_cpu_desktops() -> None:
    site = one_card()
    site.states["new"] = replace(site.states["cpu"], host="new")
    site.states["cpu"].vcpus_used = 64
    assert Desk(site).ask(CPU).hosts[0] == "new"


def test_novas_allocation_ratio_counts() -> None:
    site = Site([host("a", cpus=4)])
    site.states["a"].cpu_allocation_ratio, site.states["a"].vcpus_used = 4.0, 4
    asked = read(spec(1, flavor(12, 1024)))
    engine = Desk(site).engine
    assert engine.judge(asked, [look(site.states["a"])], {}).hosts == ("a",)


def test_a_server_that_nova_has_put_on_a_host_but_not_into_its_numbers_still_counts() -> None:
    site = Site([host("a", cpus=16)])
    desk = Desk(site)
    desk.ask(flavor(4, 1024))
    desk.ask(flavor(2, 1024))
    assert desk.free("a") == 10_000
    state = site.states["a"]
    state.instances["5b1b1f5e-0000-4000-8000-000000000001"] = None
    desk.ask(flavor(0, 0))
    assert desk.free("a") == 10_000, "one of two is on it, its numbers say none"
    state.num_instances, state.vcpus_used = 1, 4
    desk.ask(flavor(0, 0))
    assert desk.free("a") == 10_000, "what is in its numbers does not count twice"


def test_a_server_that_is_in_the_numbers_of_its_host_and_not_yet_among_its_servers_counts_once() -> None:
    site = Site([host("a", cpus=16)])
    desk = Desk(site)
    desk.ask(flavor(4, 1024))
    desk.ask(flavor(2, 1024))
    state = site.states["a"]
    state.num_instances, state.vcpus_used = 1, 4
    desk.ask(flavor(0, 0))
    assert desk.free("a") == 10_000
    state.instances["5b1b1f5e-0000-4000-8000-000000000001"] = None
    desk.ask(flavor(0, 0))
    assert desk.free("a") == 10_000, "the other still counts"


def test_servers_of_a_host_that_are_never_named_do_not_hide_those_that_come() -> None:
    site = Site([host("a", cpus=16)])
    state = site.states["a"]
    state.num_instances, state.vcpus_used = 2, 2  # and Nova names none of them
    desk = Desk(site)
    desk.ask(flavor(4, 1024))
    desk.ask(flavor(3, 1024))
    state.updated = datetime.fromtimestamp(site.now, UTC)
    desk.ask(flavor(0, 0))
    assert desk.free("a") == 7_000
    state.num_instances, state.vcpus_used = 3, 6
    desk.ask(flavor(0, 0))
    assert desk.free("a") == 7_000


def test_a_server_whose_card_is_still_free_is_not_in_the_numbers_of_its_host() -> None:
    site = one_card()
    desk = Desk(site)
    desk.ask(GPU, 1)
    site.states["gpu"].num_instances = 1  # somebody else's
    desk.ask(flavor(0, 0))
    assert desk.free("gpu") == site.states["gpu"].vcpus_total * 1000 - 8000


def test_a_server_that_never_came_is_forgotten_when_its_host_reports_without_it() -> None:
    site = Site([host("a", cpus=16)])
    desk = Desk(site)
    desk.ask(flavor(4, 1024))
    site.now += 31
    site.states["a"].updated = datetime.fromtimestamp(site.now, UTC)
    desk.ask(flavor(0, 0))
    assert desk.free("a") == 16_000


def test_placement_is_believed_where_a_hosts_last_report_seems_too_full() -> None:
    site = Site([host("a", cpus=4)])
    site.states["a"].vcpus_used = 4
    engine = Desk(site).engine
    assert engine.judge(read(spec(1, flavor(2, 1024))), [look(site.states["a"])], {}).hosts == ("a",)


def test_aggregates_of_nova_are_the_aggregates_of_the_words() -> None:
    site = Site([host("a"), host("b"), host("c")])
    site.states["b"].aggregates = (SimpleNamespace(name="B7", metadata={"beamdesk:dedicated": "true"}),)
    desk = Desk(site)
    assert desk.ask(flavor(beamdesk__aggregates="B7")).hosts == ("b",)
    assert desk.ask(flavor()).hosts == ("a", "c")


def test_a_vgpu_profile_is_placed_by_the_records_beside_whole_cards_that_are_not_fit_for_it() -> None:
    parts = card(1, mode=CardMode.VGPU, geometry=equal_size_vgpu("A10", {"A10-8Q": 3, "A10-24Q": 1}))
    site = Site([host("mixed", cards=(card(0), parts)), host("whole", cards=(card(0),))])
    site.states["mixed"].pools = [pool(card(0).address)]
    verdict = Desk(site).ask(flavor(beamdesk__gpu_profile="A10-8Q", resources__VGPU="1"))
    assert verdict.hosts == ("mixed",)


def test_more_cards_than_any_host_has_is_said_at_once() -> None:
    verdict = Desk(Site([host("gpu", cards=(card(0), card(1)))])).ask(GPU, 1)
    assert verdict.hosts == ("gpu",)
    site = Site([host("gpu", cards=(card(0), card(1)))])
    asked = read(spec(1, flavor(beamdesk__gpus="3"), 3))
    refused = Desk(site).engine.judge(asked, [look(one) for one in site.states.values()], {"gpu": ()})
    assert refused.why == "It asks for 3 cards; no host has more than 2."


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_url": "http://beamdesk.example"},
        {"api_url": "ftp://beamdesk.example"},
        {"api_url": "https://name:word@beamdesk.example"},
        {"api_url": "https://beamdesk.example/?a=b"},
        {"api_url": "https://beamdesk.example", "credential_file": ""},
        {"stale_after": 5.0, "interval": 5.0},
    ],
)
def test_options_that_cannot_work_are_refused_at_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        Options(**{"credential_file": "/etc/nova/beamdesk.credential", **wrong})


def test_http_is_for_loopback() -> None:
    assert Options(api_url="http://127.0.0.1:8080", credential_file="x").api_url
