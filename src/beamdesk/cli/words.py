"""English for the API's codes. An unknown code is shown as it is: an older client must not hide what a newer portal says."""

from __future__ import annotations

from typing import Any

STEPS = {
    "queue": "waiting for resources",
    "server": "starting the machine",
    "enrol": "handing over its identity",
    "account": "making your account",
    "storage": "checking your data",
    "display": "starting the display",
    "desktop": "starting the desktop",
    "stream": "starting the stream",
}
REASONS = {
    "waiting_for_capacity": "waiting for free resources",
    "never_fits": "too large for this site; give it a smaller size with: beamdesk desktop resize",
    "lease_ended": "its time was up; start it again to go on, your home is kept",
    "idle": "it was not used; start it again to go on, your home is kept",
    "user": "",
    "operator": "stopped by an operator",
    "cloud_unavailable": "the cloud does not answer; this is tried again",
    "cloud_busy": "the cloud is busy or slow; this goes on by itself",
    "cloud_refused": "the cloud refused",
    "build_timeout": "the machine did not start in time; start it again or tell the operators",
    "boot_timeout": "the desktop did not come up in time; start it again or tell the operators",
    "server_error": "the machine failed; start it again or tell the operators",
    "server_lost": "the machine was lost; it is being replaced",
    "host_lost": "the machine that it runs on does not answer; tell the operators",
    "guest_failed": "the desktop could not start; see the cause, then start it again",
    "guest_silent": "the desktop stopped answering",
    "duplicate_server": "a second machine appeared and is being removed",
}
LACKING = {
    "vcpus": "CPUs",
    "memory_mib": "memory",
    "disk_gib": "disk",
    "gpus": "GPUs",
    "gpu_kind": "GPUs of this kind",
    "desktops": "number of desktops",
    "booked": "the end of a booking",
    "stale": "hosts that report again",
    "hosts": "hosts that are open",
    "together": "all of it on one host",
    "image": "hosts that have the image",
    "image_needs": "what the image asks for",
}
OUTCOMES = {
    "placed": "it runs where the scheduler put it",
    "waiting": "it waits",
    "never": "no host could ever run it",
    "stopped": "it is stopped and holds nothing",
    "pending": "nothing was decided yet",
    "elsewhere": "the cloud decides by itself where it runs; beamdesk knows no reasons",
}
AVAILABILITY = {
    "now": "now",
    "wait": "would wait",
    "quota": "over quota",
    "never": "never fits here",
    "unknown": "the cloud decides",
}
SURENESS = {"sure": "for sure", "likely": "likely", "possible": "if leases end when they say"}


def remarks(desktop: dict[str, Any]) -> str:
    """Return what the agent of a ready desktop remarks."""
    return " ".join(step["detail"] for step in desktop["steps"] if step["detail"]) if desktop["phase"] == "ready" else ""


def use(desktop: dict[str, Any]) -> str:
    """Return how much CPU and GPU a desktop uses, on one line; empty where it does not run. What is not known is called so."""
    if desktop["phase"] != "ready":
        return ""
    now = desktop.get("use")
    if now is None:
        return "not known"
    parts = [f"CPU {now['cpu']:.0%}"]
    if now["gpu_state"] != "none":
        unmeasured = "cannot be used" if now["gpu_state"] == "unusable" else "not known"
        parts.append(f"GPU {unmeasured}" if now["gpu"] is None else f"GPU {now['gpu']:.0%}")
    return ", ".join(parts)


def lacking(names: list[str]) -> str:
    """Return what is short, in words."""
    return ", ".join(LACKING.get(name, name) for name in names)


def why(desktop: dict[str, Any]) -> str:
    """Return why a desktop is where it is: place in the line, reason and cause."""
    parts = []
    if queue := desktop.get("queue"):
        short = lacking(queue["lacking"])
        parts.append(f"place {queue['place']} in the line" + (f", short of {short}" if short else ""))
    if desktop["reason"]:
        parts.append(REASONS.get(desktop["reason"], desktop["reason"]))
    if desktop["detail"]:
        parts.append(desktop["detail"])
    return "; ".join(part for part in parts if part)


def now_doing(desktop: dict[str, Any]) -> str:
    """Return the step that a desktop on its way up is at."""
    step = next((step for step in desktop["steps"] if step["state"] in ("running", "failed")), None)
    if step is None:
        return str(desktop["phase"])
    words = STEPS.get(step["name"], step["name"])
    done = sum(step["state"] == "done" for step in desktop["steps"])
    return f"[{done}/{len(desktop['steps'])}] {words}" + (f": {step['detail']}" if step["detail"] else "")
