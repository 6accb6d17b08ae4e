// What the pages do beyond forms and links. Every action works without this file; it makes them quicker and live.

const words = JSON.parse(document.getElementById("script-words")?.textContent || "{}");
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const say = (key, values = {}) => (words[key] || "").replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");

// --- live updates: the stream says which desktop changed, the page fetches the part that it shows ---
const soon = new Map();
function refresh(element) {
  if (soon.has(element)) return;
  soon.set(element, setTimeout(() => { soon.delete(element); if (element.isConnected) window.htmx.trigger(element, "refresh"); }, 30));
}
function messageOf(event) {
  try { return JSON.parse(event.detail.data); } catch { return {}; }
}
document.addEventListener("desktop-changed", (event) => {
  const id = messageOf(event).desktop;
  $$("[data-desktop]").filter((element) => element.dataset.desktop === id).forEach(refresh);
});
document.addEventListener("list-changed", () => $$("[data-live-list]").forEach(refresh));
document.addEventListener("activity-changed", () => $$("[data-live-activity]").forEach(refresh));
document.addEventListener("tick", () => { loadThumbnails(); loadUse(); });
document.addEventListener("ended", toSignIn);
document.addEventListener("htmx:sse:after:connection", () => { $("#offline").hidden = true; });
document.addEventListener("htmx:sse:error", (event) => {
  if (event.detail?.status === 401) toSignIn();
  else if (!document.hidden) $("#offline").hidden = false;
});
// The extension connects again by itself, but not when the very first attempt fails.
function connectLater(event) {
  if (leaving || !event.detail?.ctx?.request?.action?.startsWith("/live")) return;
  if (event.detail.ctx.response?.status === 401) { toSignIn(); return; }
  $("#offline").hidden = false;
  const address = document.body.getAttribute("hx-sse:connect");
  setTimeout(() => window.htmx.ajax("GET", address, { source: document.body }), 4000 + Math.random() * 2000);
}
document.addEventListener("htmx:error", connectLater);
document.addEventListener("htmx:response:error", connectLater);
let leaving = false;
window.addEventListener("beforeunload", () => { leaving = true; });
function toSignIn() {
  if (leaving) return;
  leaving = true;
  location.assign(`/sign-in?${new URLSearchParams({ ended: "1", next: location.pathname + location.search })}`);
}

// --- thumbnails: fetched again at every heartbeat, shown when they are there ---
function loadThumbnails() {
  if (document.hidden) return;
  for (const picture of $$("img[data-thumbnail]")) {
    const next = new Image();
    next.onload = () => { picture.src = next.src; picture.hidden = false; };
    next.src = `${picture.dataset.thumbnail}?t=${Date.now()}`;
  }
}

// --- how much desktops are used: one request for all that are shown, at every heartbeat, of which a busy site sends many ---
let usedAt = 0;
async function loadUse() {
  const area = $("[data-live-use]");
  if (document.hidden || !area || !$("[data-use]", area) || Date.now() - usedAt < 1900) return;
  usedAt = Date.now();
  const answer = await fetch(area.dataset.liveUse, { headers: { "HX-Request": "true" } }).catch(() => null);
  if (!answer?.ok || answer.redirected) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const meters of $$("[data-use]", fresh)) $(`[data-use="${meters.dataset.use}"]`)?.replaceWith(meters);
}

// --- time: what is left, what has passed, in local time ---
function duration(milliseconds) {
  const minutes = Math.floor(milliseconds / 60000);
  const d = Math.floor(minutes / 1440), h = Math.floor(minutes / 60) % 24, m = minutes % 60;
  if (d) return h ? say("days_hours", { d, h }) : say(`days.${d === 1 ? "one" : "other"}`, { n: d });
  if (h) return m ? say("hours_minutes", { h, m }) : say(`hours.${h === 1 ? "one" : "other"}`, { n: h });
  return m ? say("minutes", { m }) : say("under_a_minute");
}
function setText(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}
function tellTime() {
  const now = Date.now();
  for (const element of $$("[data-ends]")) {
    const left = Date.parse(element.dataset.ends) - now;
    setText($(".time-left-text", element), left > 0 ? say("left", { time: duration(left) }) : say("over"));
    const level = left <= 300000 ? "critical" : left <= 1800000 ? "soon" : "calm";
    if (!element.classList.contains(level)) element.className = `time-left ${level}`;
  }
  for (const element of $$("time[data-ago]")) {
    const passed = now - Date.parse(element.dateTime);
    setText(element, passed < 60000 ? say("just_now") : say("ago", { time: duration(passed) }));
  }
}
function rememberZone() {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && document.documentElement.dataset.zone !== zone) {
    document.cookie = `beamdesk_zone=${encodeURIComponent(zone)}; path=/; max-age=31536000; samesite=lax`;
    for (const element of $$("time[data-local]")) setText(element, new Date(element.dateTime).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" }));
  }
}

// --- messages ---
function toast(text, tone) {
  const box = document.createElement("p");
  box.className = `toast tone-${tone}`;
  box.textContent = text;
  $("#toasts").append(box);
  setTimeout(() => box.remove(), tone === "failed" ? 12000 : 5000);
}
document.addEventListener("notice", (event) => toast(event.detail.text, "ready"));
document.addEventListener("problem", (event) => { closeDialog(); toast(event.detail.text, "failed"); });
document.addEventListener("htmx:error", (event) => {
  if (event.detail?.ctx && !leaving && !event.detail.ctx.request.action?.startsWith("/live")) toast(say("trouble"), "failed");
});
new MutationObserver((changes) => {
  for (const { target, oldValue } of changes) {
    if (oldValue === target.dataset.state) continue;
    $("#announcer").textContent = say("announce", { name: target.dataset.name, state: target.dataset.state });
    if (target.dataset.tone === "ready") offerToConnect(target);
  }
}).observe(document.body, { subtree: true, attributes: true, attributeFilter: ["data-state"], attributeOldValue: true });
function offerToConnect(detail) {
  document.title = `● ${detail.dataset.state} · ${detail.dataset.name}`;
  const button = $(".status .button.primary", detail);
  if (button && [document.body, null].includes(document.activeElement)) button.focus();
}

// --- dialog, menus, forms ---
const dialog = $("#dialog");
let opener = null;
function closeDialog() { if (dialog?.open) dialog.close(); }
dialog?.addEventListener("close", () => {
  const from = opener, owner = opener?.closest("[data-desktop]")?.id;
  opener = null;
  closeMenus();
  // The swap that follows may replace what opened the dialog: look for it in the page as it is then.
  setTimeout(() => {
    const now = from?.isConnected ? from : document.getElementById(owner);
    (now?.closest(".menu")?.querySelector("summary") || now?.querySelector?.("[data-menu] summary") || now || $("#main")).focus();
  }, 60);
});
dialog?.addEventListener("click", (event) => { if (event.target === dialog || event.target.closest("[data-close]")) { event.preventDefault(); closeDialog(); } });
document.addEventListener("htmx:after:swap", (event) => {
  if (event.detail?.ctx?.target?.id === "dialog-body" && !dialog.open) {
    dialog.showModal();
    $("[autofocus]", dialog)?.select?.();
  }
  settle();
});
document.addEventListener("htmx:after:request", (event) => {
  const source = event.detail?.ctx?.sourceElement;
  if (source?.matches?.("[data-closes]") && event.detail.ctx.response?.status < 400 && !event.detail.ctx.response.headers.get("HX-Retarget")) closeDialog();
});
document.addEventListener("htmx:finally:request", (event) => free(event.detail?.ctx?.sourceElement));
function closeMenus(except) {
  for (const menu of $$("details.menu[open]")) if (menu !== except) menu.open = false;
}
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-dialog]");
  if (link) opener = link;
  const menu = event.target.closest("details.menu");
  closeMenus(event.target.closest(".menu-panel") && !link ? null : menu);
  const fill = event.target.closest("[data-fill]");
  if (fill) {
    $("#login").value = fill.dataset.fill;
    const password = $("#password");
    const shown = $(".demo code");
    if (shown) password.value = shown.textContent;
    (shown ? $(".sign-in-form .primary") : password).focus();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || dialog?.open) return;
  const menu = event.target.closest?.("details.menu[open]");
  closeMenus();
  $("summary", menu || undefined)?.closest("details.menu") === menu && menu && $("summary", menu).focus();
});
function free(form) {
  if (!form?.matches?.("[data-once]")) return;
  for (const button of $$("button", form)) button.removeAttribute("aria-busy");
}
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.matches("[data-theme-form]")) { event.preventDefault(); chooseTheme(form, event.submitter); return; }
  if (!form.matches("[data-once]")) return;
  if ($("[aria-busy=true]", form)) { event.preventDefault(); event.stopImmediatePropagation(); return; }
  (event.submitter || $("button", form))?.setAttribute("aria-busy", "true");
}, true);
window.addEventListener("pageshow", () => $$("[data-once]").forEach(free));
function chooseTheme(form, button) {
  document.documentElement.dataset.theme = button.value;
  const body = new URLSearchParams(new FormData(form, button));
  fetch(form.action, { method: "POST", body, redirect: "manual" });
  $(button.value === "dark" ? ".to-light" : ".to-dark", form).focus();
}
document.addEventListener("change", (event) => {
  const form = event.target.closest?.("[data-auto-submit]");
  if (form) form.requestSubmit();
});

function settle() { tellTime(); loadMissing(); }
function loadMissing() {
  if ($("img[data-thumbnail][hidden]")) loadThumbnails();
}
rememberZone();
settle();
setInterval(tellTime, 10000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) settle(); });

// --- data: the slider says where it is while it moves ---
document.addEventListener("input", (event) => {
  const output = event.target.type === "range" && $("output[data-slice-count]", event.target.closest("form"));
  if (output) setText(output, say("slice_of", { n: Number(event.target.value) + 1, count: output.dataset.sliceCount }));
});
