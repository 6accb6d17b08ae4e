// The page's words come from the server in the person's language; here they are only put together.

/** @type {{words: Record<string, string>, look: Look, client: string, worklet: string}} */
export const boot = JSON.parse(document.getElementById("boot")?.textContent ?? "{}");

/**
 * @typedef {object} Look What the server says of this session.
 * @property {"open" | "waiting" | "stopped" | "ended" | "none" | "unknown"} state
 * @property {string} session
 * @property {string} name
 * @property {"controller" | "viewer" | ""} role
 * @property {number} left_s Seconds until the desktop is stopped.
 * @property {boolean} may_extend
 * @property {string} title
 * @property {string} text
 * @property {string} portal
 */

/**
 * Return the words for a key, with {names} filled in.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export function say(key, values = {}) {
  return (boot.words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/**
 * Return a duration in words, exact to the minute.
 * @param {number} seconds
 */
export function duration(seconds) {
  const minutes = Math.max(0, Math.ceil(seconds / 60));
  if (minutes < 60) return say("minutes", { m: minutes });
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return say("hours", { h: hours, m: minutes % 60 });
  return say("days", { d: Math.floor(hours / 24), h: hours % 24 });
}

/**
 * Return an element of the page, which is there or the page is broken.
 * @param {string} id
 * @returns {any}
 */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element #${id}`);
  return found;
}
