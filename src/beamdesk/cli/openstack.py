"""`beamdesk openstack`: what an operator of a cloud needs. It reads and prints; it changes neither cloud nor host."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from beamdesk.adapters.openstack import gpu_plan_facts
from beamdesk.adapters.openstack.doctor import Finding, Verdict, examine_host
from beamdesk.adapters.openstack.gpu_plan import make_plan
from beamdesk.adapters.openstack.gpu_plan_facts import HostFacts
from beamdesk.adapters.openstack.gpu_plan_text import render
from beamdesk.cli.failure import Exit, Failure
from beamdesk.cli.output import AsJson, clean, print_json, uses_colour
from beamdesk.domain.errors import BeamdeskError, ConfigurationError
from beamdesk.openstack_settings import OpenStackSettings

openstack_app = typer.Typer(help="Examine a cloud and its hypervisors, plan GPUs.", no_args_is_help=True)

Facts = Annotated[Path | None, typer.Option(help="Facts file of a host, made there by: beamdesk openstack facts.")]
_MARKS = {
    Verdict.OK: ("ok", "32"),
    Verdict.WARNING: ("warning", "33"),
    Verdict.MISSING: ("MISSING", "31"),
    Verdict.WRONG: ("WRONG", "31"),
    Verdict.UNKNOWN: ("unknown", "36"),
}


@openstack_app.command("doctor")
def doctor_command(
    host: Annotated[bool, typer.Option("--host", help="Examine this machine as a hypervisor instead of the cloud.")] = False,
    cloud: Annotated[str, typer.Option(help="Entry of clouds.yaml instead of the one in the settings.")] = "",
    admin_cloud: Annotated[str, typer.Option(help="Entry of clouds.yaml for what only an administrator sees.")] = "",
    facts: Facts = None,
    as_json: AsJson = False,
) -> None:
    """Say step by step what is fine, missing or wrong, and what to do; exit code 1 when something is missing or wrong."""
    if host or facts is not None:
        from beamdesk.adapters.openstack.doctor_host import CHECKS

        findings = list(examine_host(CHECKS, _facts(facts)))
    else:
        findings = _examine_cloud(cloud, admin_cloud)
    if as_json:
        print_json({"failed": any(one.failed for one in findings), "findings": [asdict(one) for one in findings]})
    else:
        for line in report(findings, colour=uses_colour(sys.stdout)):
            typer.echo(line)
    if any(one.failed for one in findings):
        raise typer.Exit(int(Exit.FAILED))


def _examine_cloud(cloud: str, admin_cloud: str) -> list[Finding]:
    from beamdesk.settings import load_settings

    try:
        return examine_settings(load_settings().openstack, cloud=cloud, admin_cloud=admin_cloud)
    except BeamdeskError as error:
        raise Failure(Exit.FAILED, error.message) from error


def examine_settings(settings: OpenStackSettings, *, cloud: str = "", admin_cloud: str = "") -> list[Finding]:
    """Run the doctor on what the settings name, or on one other entry of clouds.yaml.

    Raises:
        ConfigurationError: clouds.yaml has no such entry, or it cannot be used.
    """
    from beamdesk.adapters.openstack.doctor_run import examine_config, settings_finding
    from beamdesk.adapters.system import SystemClock

    if cloud:
        settings = settings.model_copy(update={"cloud": cloud, "places": ()})
    incomplete: ConfigurationError | None = None
    try:
        config = settings.config()
    except ConfigurationError as error:  # the cloud can be examined all the same
        incomplete = error
        config = settings.model_copy(update={"guest_url": "https://unset.invalid", "manage_security_groups": False}).config()
        config = replace(config, firewall=replace(config.firewall, managed=settings.manage_security_groups))
    findings = asyncio.run(examine_config(config, SystemClock(), admin_cloud=admin_cloud))
    return [settings_finding(incomplete), *findings]


def report(findings: Iterable[Finding], *, colour: bool = False) -> Iterable[str]:
    """Yield the lines that people read."""
    place, counts = None, dict.fromkeys(Verdict, 0)
    for one in findings:
        if one.place != place:
            place = one.place
            yield f"{clean(place)}:"
        counts[one.verdict] += 1
        word, code = _MARKS[one.verdict]
        mark = f"\033[{code}m{word:8}\033[0m" if colour else f"{word:8}"
        yield f"  {mark} {one.title}  [{one.id}]"
        yield from (f"             {clean(fact)}" for fact in one.facts)
        if one.remedy and one.verdict is not Verdict.OK:
            yield f"           > {clean(one.remedy)}"
    yield ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)


@openstack_app.command("gpu-plan")
def gpu_plan_command(
    host: Annotated[str, typer.Argument(help="Name of the host, as Nova knows it.")],
    facts: Facts = None,
    only: Annotated[list[str] | None, typer.Option(help="PCI address of a card to lend; may be repeated. Default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the steps that prepare a host's GPUs for desktops, to read and to do by hand; nothing is changed."""
    found = _facts(facts, host)
    try:
        plan = make_plan(found, only or ())
    except ValueError as error:
        raise Failure(Exit.USAGE, f"{error}.") from error
    if as_json:
        print_json(asdict(plan))
    else:
        typer.echo(render(plan), nl=False)


@openstack_app.command("facts")
def facts_command(
    script: Annotated[
        bool, typer.Option("--script", help="Print the program that collects them, for a host without Beamdesk.")
    ] = False,
) -> None:
    """Print the facts of this machine that doctor and gpu-plan need; no secret is among them."""
    if script:
        typer.echo(Path(gpu_plan_facts.__file__).read_text(encoding="utf-8"), nl=False)
    else:
        typer.echo(gpu_plan_facts.to_json(gpu_plan_facts.collect()), nl=False)


@openstack_app.command("why")
def why_command(
    size: Annotated[str, typer.Argument(help="A size on offer, or a flavor of Nova.")],
    image: Annotated[str, typer.Option(help="Id of an image, where its kind of machine matters.")] = "",
    place: Annotated[str, typer.Option(help="Name of the place; default: the first.")] = "",
    admin_cloud: Annotated[str, typer.Option(help="Entry of clouds.yaml with the right to list hosts.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say which hosts could take a desktop of this size now, and what each of the others lacks; exit code 1 when none could."""
    from beamdesk.adapters.openstack.why_run import examine_size
    from beamdesk.settings import load_settings

    try:
        config = load_settings().openstack.config()
        chosen = next((one for one in config.places if place in ("", one.name)), None)
        if chosen is None:
            raise Failure(Exit.USAGE, f"There is no place {clean(place)} in openstack.places.")
        found = asyncio.run(examine_size(config, chosen, size, image, admin_cloud))
    except BeamdeskError as error:
        raise Failure(Exit.FAILED, error.message) from error
    if as_json:
        print_json({"hosts": {**dict.fromkeys(found.left, ""), **found.why}, "words": found.counted()})
    else:
        if said := found.counted():
            typer.echo(clean(said))
        for name, lacks in sorted({**dict.fromkeys(found.left, "has room"), **found.why}.items()):
            typer.echo(f"  {clean(name)}: {clean(lacks)}")
    if not found.left:
        raise typer.Exit(int(Exit.FAILED))


def _facts(path: Path | None, host: str | None = None) -> HostFacts:
    if path is None:
        found = gpu_plan_facts.collect()
        if host and host not in {found.host, found.host.split(".")[0]}:
            name = clean(host)
            how = f"beamdesk openstack facts --script | ssh {name} python3 - >{name}.json, then add --facts {name}.json"
            raise Failure(Exit.USAGE, f"This is {found.host}, not {name}. Collect the facts there: {how}")
        return found
    try:
        return gpu_plan_facts.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failure(Exit.USAGE, f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise Failure(Exit.USAGE, f"{path} cannot be used: {error}.") from error
