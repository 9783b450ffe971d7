// What a dispatcher sees of a site whose path loses packets: a good mark with its numbers, then a poor one with its
// reason, then a good one again. The loss is real: three datagrams in four of the agent are dropped.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { byId, inBothLanguages, launch, openPage, showsMoving } from "../lib/browser.mjs";
import { Demo, until } from "../lib/demo.mjs";
import { inOwnNetwork, lose, loseNothing, runInOwnNetwork } from "../lib/field.mjs";

const AGENTS = 4;

if (!inOwnNetwork) {
  test("a site's quality mark follows the real loss of its path", { timeout: 240_000 }, async () => {
    const output = await runInOwnNetwork(import.meta.filename);
    assert.match(output, /pass 1\b/);
  });
} else {
  let demo, browser, desk;
  after(async () => {
    await browser?.close().catch(() => undefined);
    await demo?.stop();
  });

  const tileOf = (site) => byId(desk, "tile", `[data-site="${site}"]`);
  const markOf = (site) => byId(tileOf(site), "quality");
  const bars = async (site) => Number(await markOf(site).getAttribute("data-bars"));
  const tip = () => desk.locator("[popover]:popover-open");

  async function intoMeeting() {
    const { url, account, password } = demo.announced();
    desk = await openPage(browser, url);
    await byId(desk, "signin-account").fill(account);
    await byId(desk, "signin-password").fill(password);
    await byId(desk, "signin-submit").click();
    await until("all agents are online", async () => (await byId(desk, "online-count").innerText()).includes(String(AGENTS)), { limitMs: 60_000 });
    await byId(desk, "online-count").click();
    await byId(desk, "tree-check").first().click();
    await byId(desk, "convene").click();
    await byId(desk, "convene-confirm").click();
    await byId(desk, "on-air-count", `[data-on-air="${AGENTS}"]`).waitFor({ timeout: 30_000 });
  }

  test("good, then poor, with sound alone and its reason, then good again", { timeout: 200_000 }, async () => {
    demo = await Demo.start(AGENTS);
    const [{ site, pid }, { site: other }] = demo.announced().agents;
    browser = await launch("desk:duty", demo.folder);
    await intoMeeting();
    await showsMoving(tileOf(site), site, 30_000);

    await until("a good mark", async () => (await bars(site)) === 3, { limitMs: 30_000 });
    await markOf(site).hover();
    const numbers = await until("the mark tells a rate and a round trip", async () => {
      const said = await tip().innerText();
      return /上行：[1-9][\d.]* [kM]b\/s，丢包 [\d.]+ %，\d+×\d+/.test(said) && /往返 [1-9]\d* 毫秒/.test(said) ? said : undefined;
    });
    assert.match(numbers, /^良好/);
    await inBothLanguages(desk, "command-quality-good");

    // By keyboard: the tile, then its microphone's neighbour.
    await tileOf(site).click({ position: { x: 20, y: 20 } });
    await tileOf(site).focus();
    await desk.keyboard.press("Tab");
    await until("the keyboard opens the tip", async () => (await tip().count()) === 1 && (await markOf(site).evaluate((mark) => mark === document.activeElement)));
    await desk.keyboard.press("Escape");
    assert.equal(await tip().count(), 0);

    // Less would be repaired by the link, and nobody would see anything of it.
    lose(pid, 75);
    await until("a poor mark", async () => (await bars(site)) === 1, { limitMs: 40_000 });
    assert.equal(await bars(other), 3, "the others are well");
    await byId(desk, "poor-row", `[data-site="${site}"]`).waitFor();
    await inBothLanguages(desk, "command-quality-poor");
    // The site gives up what its link does not carry: the tile says so over the picture that stands still, and the list.
    await until("the tile says that there is sound alone", async () => (await tileOf(site).innerText()).includes("只有声音"), { limitMs: 40_000 });
    assert.match(await byId(desk, "poor-row", `[data-site="${site}"]`).innerText(), /只传声音/);
    await markOf(site).hover();
    await until("the reason in words, once", async () => (await tip().innerText()).match(/会场带宽不足：只传声音/g)?.length === 1);
    await inBothLanguages(desk, "command-quality-sound");

    loseNothing();
    await until("the mark betters", async () => (await bars(site)) === 3, { limitMs: 60_000 });
    await byId(desk, "poor-row").waitFor({ state: "detached" });
  });
}
