// Pictures of a page in three sizes, and what is wrong with its layout: words that are cut off though nothing says so, controls
// that leave the page, controls that lie on each other. Pictures are kept where MUSTER_E2E_PICTURES says, if it does.

import assert from "node:assert/strict";
import { join } from "node:path";

export const SIZES = [
  { width: 1920, height: 1080 },
  { width: 1280, height: 720 },
  { width: 390, height: 844 },
];

/** What a person could not read or press. Runs in the page. */
function faults() {
  const seen = (element) => {
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) return undefined;
    const box = element.getBoundingClientRect();
    return box.width > 1 && box.height > 1 ? box : undefined;
  };
  const named = (element) => `${element.tagName.toLowerCase()}.${[...element.classList].join(".")} "${(element.innerText || element.ariaLabel || "").trim().slice(0, 30)}"`;
  /** The part of it that its scrolling or cutting parents leave. */
  const left = (element) => {
    const { left: x, top: y, right, bottom } = element.getBoundingClientRect();
    const box = { x, y, right, bottom };
    for (let parent = element.parentElement; parent; parent = parent.parentElement) {
      const style = getComputedStyle(parent);
      if (style.overflowX === "visible" && style.overflowY === "visible") continue;
      const edge = parent.getBoundingClientRect();
      box.x = Math.max(box.x, edge.left);
      box.y = Math.max(box.y, edge.top);
      box.right = Math.min(box.right, edge.right);
      box.bottom = Math.min(box.bottom, edge.bottom);
    }
    return box;
  };
  const scrolls = (element) => {
    for (let parent = element.parentElement; parent; parent = parent.parentElement) {
      const { overflowX, overflowY } = getComputedStyle(parent);
      if ([overflowX, overflowY].some((how) => how === "auto" || how === "scroll")) return true;
    }
    return false;
  };
  const found = [];
  const controls = [...document.querySelectorAll("button, select, input")].filter((control) => seen(control) && !control.closest(".tools"));
  for (const control of controls) {
    const box = control.getBoundingClientRect();
    const rest = left(control);
    const cut = rest.x - box.left > 2 || box.right - rest.right > 2 || rest.y - box.top > 2 || box.bottom - rest.bottom > 2;
    if (cut && !scrolls(control)) found.push(`cut off: ${named(control)}`);
    if (box.left < -2 || box.right > document.documentElement.scrollWidth + 2) found.push(`outside the page: ${named(control)}`);
    if (control.tagName === "BUTTON" && control.scrollWidth > control.clientWidth + 2 && !control.classList.contains("cut")) found.push(`its words do not fit: ${named(control)}`);
    const middle = { x: (rest.x + rest.right) / 2, y: (rest.y + rest.bottom) / 2 };
    if (rest.right - rest.x < 4 || rest.bottom - rest.y < 4 || middle.y > innerHeight || middle.x > innerWidth) continue;
    const top = document.elementFromPoint(middle.x, middle.y);
    const other = top?.closest("button, select, input");
    if (other && other !== control && !control.contains(other) && !other.closest("[data-testid=sheet], [data-testid=site-menu], form.panel") && !(other.closest("footer") && scrolls(control))) found.push(`${named(other)} lies on ${named(control)}`);
  }
  for (const text of document.querySelectorAll("p, span, b, h2, h3, small, td, time")) {
    if (!seen(text) || text.classList.contains("cut") || text.closest(".cut, .hidden-text, .hidden-head, .room, .off, svg") || text.children.length > 0) continue;
    const { overflowX } = getComputedStyle(text);
    if (overflowX !== "visible" && text.scrollWidth > text.clientWidth + 2) found.push(`cut off: ${named(text)}`);
  }
  for (const place of document.querySelectorAll("[data-testid=stage], [data-testid=content], [data-testid=tile]")) {
    const { width, height } = place.getBoundingClientRect();
    if (width < 60 || height < 40) found.push(`no room: ${place.dataset.testid} is ${Math.round(width)} x ${Math.round(height)}`);
  }
  for (const place of document.querySelectorAll(".scroll, .desk, aside")) {
    if (seen(place) && place.scrollWidth > place.clientWidth + 2) found.push(`wider than its room: ${named(place)}`);
  }
  if (document.documentElement.scrollWidth > innerWidth + 2) found.push(`the page is ${document.documentElement.scrollWidth} px wide, the window ${innerWidth}`);
  return [...new Set(found)];
}

/** What is wrong when the page has come to rest: pictures take their new sizes a moment after the window. */
async function lasting(page) {
  const until = Date.now() + 3000;
  for (;;) {
    const found = await page.evaluate(faults);
    if (found.length === 0 || Date.now() > until) return found;
    await page.waitForTimeout(100);
  }
}

/** Looks at the page in each size, keeps the pictures, and fails for what a person could not read or press. */
export async function lookAt(page, name, sizes = SIZES) {
  const before = page.viewportSize();
  const found = [];
  for (const size of sizes) {
    await page.setViewportSize(size);
    await page.waitForFunction(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true)))));
    found.push(...(await lasting(page)).map((fault) => `${size.width} px: ${fault}`));
    const kept = process.env.MUSTER_E2E_PICTURES;
    if (kept) await page.screenshot({ path: join(kept, `${name}.${size.width}.png`), animations: "disabled" });
  }
  await page.setViewportSize(before);
  assert.deepEqual(found, [], `${name}: nothing overlaps or is cut off`);
}
