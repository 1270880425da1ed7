// What is looked at: shared by all views, and in the fragment of the URL.
import { effect, signal } from "@preact/signals";

const there = new URLSearchParams(location.hash.slice(1));

/** @type {import("@preact/signals").Signal<any>} what `page.shown` answered. */
export const shown = signal(null);
/** Whether our example is looked at, where there is nothing else. */
export const example = signal(there.get("example") === "1");
export const view = signal(Number(there.get("view") ?? 1));
export const row = signal(Number(there.get("row") ?? 0));
/** The call that is selected in all views, by its index. */
export const call = signal(Number(there.get("call") ?? 0));
/** The element that is explained, as text: `fc1[0, 7]`. */
export const element = signal(there.get("element") ?? "");
export const theme = signal(there.get("theme") ?? "");
/** Digits behind the point, 4 or 16: the key d. */
export const digits = signal(4);

const KEPT = `forwardpass said ${location.pathname}`;

/** @returns {Record<string, number>} what was said before a reload, in this tab. */
function before() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
  } catch {
    return {}; // no storage in a sandboxed frame
  }
}

/** By `view:id:row`, the choice that was said: its place, -1 for "I don't know", -2 skipped. */
export const said = signal(before());

effect(() => {
  const text = JSON.stringify(said.value);
  try {
    sessionStorage.setItem(KEPT, text);
  } catch {
    // as above: then a reload asks again
  }
});

effect(() => {
  const now = new URLSearchParams();
  const token = there.get("t");
  if (token) now.set("t", token);
  if (example.value) now.set("example", "1");
  if (view.value !== 1) now.set("view", String(view.value));
  if (row.value) now.set("row", String(row.value));
  if (call.value) now.set("call", String(call.value));
  if (element.value) now.set("element", element.value);
  if (theme.value) now.set("theme", theme.value);
  history.replaceState(null, "", `#${now}`);
});

const dark = matchMedia("(prefers-color-scheme: dark)");
export const darkNow = signal(false);
const themed = () => {
  darkNow.value = theme.value ? theme.value === "dark" : dark.matches;
  document.documentElement.dataset.theme = darkNow.value ? "dark" : "light";
};
effect(themed);
dark.addEventListener("change", themed);
