// `muster demo` as a child process, on free ports and in a data folder of its own.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const root = resolve(import.meta.dirname, "../../..");
const target = process.env.CARGO_TARGET_DIR ? resolve(root, process.env.CARGO_TARGET_DIR) : join(root, "target");
const muster = join(target, "debug/muster");

/** Polls until `probe` gives something that is not undefined; otherwise fails and says what was awaited. */
export async function until(what, probe, { limitMs = 20_000, everyMs = 50 } = {}) {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > deadline) throw new Error(`not within ${limitMs} ms: ${what}`);
    await sleep(everyMs);
  }
}

export class Demo {
  static async start(sites) {
    if (!existsSync(muster)) throw new Error(`${muster} is missing: deploy/build dev builds it`);
    const folder = mkdtempSync(join(tmpdir(), "muster-e2e-"));
    const demo = new Demo(folder);
    demo.child = spawn(
      muster,
      ["demo", "--sites", String(sites), "--listen", "127.0.0.1:0", "--data", join(folder, "data"), "--announce", demo.announceFile],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    demo.output = "";
    for (const stream of [demo.child.stdout, demo.child.stderr]) {
      stream.on("data", (text) => (demo.output = (demo.output + text).slice(-20_000)));
    }
    await until(
      "the demonstration announces itself",
      () => {
        if (demo.child.exitCode !== null) throw new Error(`muster demo ended with ${demo.child.exitCode}:\n${demo.output}`);
        return existsSync(demo.announceFile) && demo.announced().agents.length === sites;
      },
      { limitMs: 60_000 },
    );
    return demo;
  }

  constructor(folder) {
    this.folder = folder;
    this.announceFile = join(folder, "announce.json");
  }

  /** `{ url, account, password, agents: [{ site, pid }] }` as of now. */
  announced() {
    return JSON.parse(readFileSync(this.announceFile, "utf8"));
  }

  pidOf(site) {
    return this.announced().agents.find((agent) => agent.site === site)?.pid;
  }

  /** Runs the operator's command with the demonstration's account; gives what its JSON says. */
  async command(...words) {
    const { url, account } = this.announced();
    const access = ["--server", url, "--account", account, "--password-file", join(this.folder, "data/password"), "-o", "json"];
    const { stdout } = await promisify(execFile)(muster, [...words, ...access], { timeout: 30_000 });
    return JSON.parse(stdout);
  }

  async stop() {
    if (this.child.exitCode === null) {
      this.child.kill("SIGTERM");
      const ended = once(this.child, "exit");
      const late = setTimeout(() => this.child.kill("SIGKILL"), 5_000);
      await ended;
      clearTimeout(late);
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
