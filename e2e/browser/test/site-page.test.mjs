// The site's own page on its box: connected, on air, away while a report is written, and back; and what the dispatcher
// sees of the report. The control plane and both relays are killed, as in a long outage; the box is killed too.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { byId, inBothLanguages, launch, openPage } from "../lib/browser.mjs";
import { until } from "../lib/demo.mjs";
import { Fleet } from "../lib/fleet.mjs";

const SITE = "WH-EL-01-C001-S01";
const OTHERS = ["control-plane", "relay-1", "relay-2"];
const TEXT = "三号泵房进水，需要沙袋和水泵。";
const SECOND = "Two people at the gate need a doctor.";

let fleet, browser, page;

before(async () => {
  fleet = await Fleet.start([SITE]);
  browser = await launch("desk:duty", fleet.folder);
});

after(async () => {
  await browser?.close().catch(() => undefined);
  await fleet?.stop();
});

const headline = () => page.locator("#head").innerText();
const saying = (words) => until(`the page says ${words}`, async () => (await headline()).includes(words), { limitMs: 40_000 });
const reports = (state) => page.locator(`#list li[data-state="${state}"]`);

async function write(text) {
  await page.locator("#text").fill(text);
  await page.locator("#text").press("Control+Enter");
  await until("the page says that it is kept", async () => (await page.locator("#said").innerText()).includes("已存在本机"));
}

/** Nothing is wider than a screen of this size. */
async function fits(width, height) {
  await page.setViewportSize({ width, height });
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(over <= 0, `${over} pixels too wide at ${width}`);
  await page.setViewportSize({ width: 1280, height: 720 });
}

/** The box's own words for what can be wrong with a camera, and for sending less, with how the page begins to say them. */
const SAYS = [
  [{ camera_fault: "missing" }, "没有摄像机"],
  [{ camera_fault: "busy" }, "摄像机被占用"],
  [{ camera_fault: "silent" }, "摄像机没有画面"],
  [{ camera_fault: "refused" }, "摄像机拒绝访问"],
  [{ camera_fault: "unreachable" }, "摄像机连不上"],
  [{ camera_fault: "format" }, "摄像机的画面格式不能用"],
  [{ rung: "small" }, "线路慢：只发小画面"],
  [{ rung: "stills" }, "线路慢：每两秒一张静止画面"],
  [{ rung: "audio" }, "线路太慢：只发声音"],
  [{ rung: "text" }, "线路没有回应"],
];

/** On air, and the box says that something is wrong: the page says it large. */
async function saysWhatIsWrong() {
  let wrong;
  const states = "**/state";
  await page.route(states, async (route) => {
    const response = await route.fetch();
    const json = await response.json();
    await route.fulfill({ response, json: { ...json, status: { ...json.status, ...wrong } } });
  });
  for (const [such, words] of SAYS) {
    wrong = such;
    await until(`the page says ${words}`, async () => (await page.locator("#next").innerText()).startsWith(words));
    assert.equal(await page.locator("#state").getAttribute("data-tone"), "amber");
  }
  wrong = { rung: "stills" };
  await until("the page says stills", async () => (await page.locator("#next").innerText()).includes("静止画面"));
  await inBothLanguages(page, "site-page-stills");
  await page.unroute(states);
}

test("the page of a site goes through an outage, and its reports arrive once", { timeout: 300_000 }, async () => {
  try {
    page = await openPage(browser, fleet.pages.get(SITE));
    await saying("线路正常");
    await page.locator("#parts [data-key=centre][data-tone=good]").waitFor();
    await inBothLanguages(page, "site-page-connected");

    await fleet.command("convene", "--site", SITE, "--title", "防汛会商", "--wait", "30");
    await saying("在会中");
    assert.match(await page.locator("#next").innerText(), /防汛会商/);
    await inBothLanguages(page, "site-page-on-air");
    await saysWhatIsWrong();

    const cut = Date.now();
    for (const name of OTHERS) await fleet.kill(name);
    await saying("已与会议断开");
    const since = /自 (\d\d):(\d\d):(\d\d) 起/.exec(await page.locator("#since").innerText());
    const told = new Date(cut).setHours(Number(since[1]), Number(since[2]), Number(since[3]), 0);
    assert.ok(Math.abs(told - cut) < 6_000, `the link was cut at ${new Date(cut)}, the page says ${since[0]}`);
    await until("it says what it tries next", async () => /(秒后再次连接|正在连接)转发节点|可用的转发节点/.test(await page.locator("#next").innerText()));
    await write(TEXT);
    await until("the report waits", async () => (await reports("waiting").count()) === 1);
    await inBothLanguages(page, "site-page-away");
    const { y, height } = await page.locator("#send").boundingBox();
    assert.ok(y + height <= 720, `the button that sends ends at ${y + height} on a screen of 720`);
    await fits(360, 640);
    await fits(1920, 1080);

    // The box loses its power as well: what was kept is still there, and the page comes back by itself.
    await fleet.kill(`agent-${SITE}`);
    await saying("没有响应");
    fleet.again(`agent-${SITE}`);
    await saying("线路中断");
    assert.equal(await reports("waiting").count(), 1);
    await write(SECOND);
    await until("both wait", async () => (await reports("waiting").count()) === 2);

    for (const name of OTHERS) fleet.again(name);
    await until("both are sent", async () => (await reports("sent").count()) === 2, { limitMs: 60_000 });
    assert.match(await page.locator("#list li .how").first().innerText(), /^\d\d:\d\d 已送达$/);
    await inBothLanguages(page, "site-page-sent");

    const listed = await fleet.command("report", "list");
    assert.deepEqual(listed.map(({ text, site }) => [site, text]).sort(), [[SITE, TEXT], [SITE, SECOND]].sort());

    const desk = await openPage(browser, fleet.url);
    await byId(desk, "signin-account").fill(fleet.account);
    await byId(desk, "signin-password").fill(fleet.password);
    await byId(desk, "signin-submit").click();
    await byId(desk, "header-reports", '[data-unread="2"]').waitFor();
    await byId(desk, "header-reports").click();
    await until("both are listed as new", async () => (await byId(desk, "report-row", '[data-new="true"]').count()) === 2);
    assert.match(await byId(desk, "report-row").last().innerText(), /三号泵房进水/);
    await byId(desk, "header-reports", '[data-unread="0"]').waitFor();
    await inBothLanguages(desk, "reports");
    assert.deepEqual([...page.troubles.filter((text) => !text.includes("ERR_CONNECTION")), ...desk.troubles.filter((text) => !text.includes("ERR_"))], []);
  } catch (error) {
    error.message += `\n${fleet.logs()}`;
    throw error;
  }
});
