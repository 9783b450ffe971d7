// One control plane, two relays and some agents, each a process of its own that can be killed; set up as an engineer
// would, with the operator's command. What each agent sees it says in its status file.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { until } from "./demo.mjs";

const root = resolve(import.meta.dirname, "../../..");
const target = process.env.CARGO_TARGET_DIR ? resolve(root, process.env.CARGO_TARGET_DIR) : join(root, "target");
const account = "duty";
const password = "correct horse battery staple";

/** A port that nothing listens on. Nobody else takes it before we do, as such tests run alone. */
async function freePort() {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

export class Fleet {
  /** All started, the tree imported, every agent online with a warm link. `sources` names those that publish no test card. */
  static async start(sites, sources = {}) {
    const fleet = new Fleet(mkdtempSync(join(tmpdir(), "muster-e2e-")));
    try {
      await fleet.begin(sites, sources);
    } catch (error) {
      error.message += `\n${fleet.logs()}`;
      await fleet.stop();
      throw error;
    }
    return fleet;
  }

  constructor(folder) {
    this.folder = folder;
    this.children = new Map();
    this.started = new Map();
    /** Where each site's own page is. */
    this.pages = new Map();
    this.account = account;
    this.password = password;
  }

  async begin(sites, sources) {
    const [listen, agents] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
    this.url = `http://${listen}`;
    const bootstrap = ["--bootstrap-account", account, "--bootstrap-unit", "WH"];
    const ports = ["--plain", "--listen", listen, "--agents-listen", agents];
    const secret = { MUSTER_BOOTSTRAP_PASSWORD: password };
    this.spawn("control-plane", "muster-control-plane", [...ports, "--data-dir", this.path("control-plane"), ...bootstrap], secret);
    await until("the control plane answers", () => this.command("status").then(() => true, () => undefined), { limitMs: 30_000 });
    await this.command("site", "import", join(root, "data/eastlake.csv"));
    for (const name of ["relay-1", "relay-2"]) {
      const { token } = await this.command("relay", "enrol-token", "WH");
      const own = ["--plain", "--http-listen", "127.0.0.1:0", "--workers", "1", "--identity-dir", this.path(name)];
      this.spawn(name, "muster-sfu", [...own, "--control-plane", agents], { MUSTER_ENROL_TOKEN: token });
    }
    for (const site of sites) {
      const { token } = await this.command("site", "enrol-token", site);
      const page = `127.0.0.1:${await freePort()}`;
      this.pages.set(site, `http://localhost:${page.split(":")[1]}/`);
      const own = ["--identity", this.path(`agent-${site}`), "--status", this.path(`${site}.json`), "--source", sources[site] ?? "testcard:180p5", "--page", page];
      this.spawn(`agent-${site}`, "muster-edge", [...own, "--control-plane", agents], { MUSTER_ENROL_TOKEN: token });
    }
    const ready = (site) => this.status(site).state === "attached" && this.status(site).relay;
    await until("every agent has a link", () => sites.every(ready), { limitMs: 30_000 });
  }

  /** Starts again what was killed, as it was started first. */
  again(name) {
    this.spawn(name, ...this.started.get(name));
  }

  spawn(name, program, words, secrets) {
    this.started.set(name, [program, words, secrets]);
    const path = join(target, "debug", program);
    if (!existsSync(path)) throw new Error(`${path} is missing: deploy/build dev builds it`);
    const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("MUSTER_")));
    const child = spawn(path, words, { env: { ...env, ...secrets }, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (text) => existsSync(this.folder) && appendFileSync(this.path(`${name}.log`), text));
    }
    this.children.set(name, child);
  }

  path(name) {
    return join(this.folder, name);
  }

  /** What the site's agent said last. */
  status(site) {
    try {
      return JSON.parse(readFileSync(this.path(`${site}.json`), "utf8"));
    } catch {
      return {};
    }
  }

  /** The relay whose process has the UDP port of this address. */
  async relayAt(address) {
    const port = address.split(":").at(-1);
    const { stdout } = await promisify(execFile)("ss", ["-Huanp"]);
    const line = stdout.split("\n").find((text) => text.includes(`:${port} `)) ?? "";
    for (const name of ["relay-1", "relay-2"]) if (line.includes(`pid=${this.children.get(name).pid},`)) return name;
    throw new Error(`no relay has UDP port ${port}: ${line}`);
  }

  /** As a power cut does. */
  async kill(name) {
    const child = this.children.get(name);
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  }

  /** Runs the operator's command; gives what its JSON says. */
  async command(...words) {
    const access = ["--server", this.url, "--account", account, "-o", "json"];
    const env = { ...process.env, MUSTER_PASSWORD: password };
    const { stdout } = await promisify(execFile)(join(target, "debug/muster"), [...words, ...access], { env, timeout: 30_000 });
    return JSON.parse(stdout.trim().split("\n").at(-1));
  }

  /** The ends of all logs, shown when a test fails. */
  logs() {
    const logs = existsSync(this.folder) ? readdirSync(this.folder).filter((name) => name.endsWith(".log")) : [];
    return logs.map((name) => `== ${name}\n${readFileSync(this.path(name), "utf8").split("\n").slice(-25).join("\n")}`).join("\n");
  }

  async stop() {
    const running = [...this.children.values()].filter((child) => child.exitCode === null && child.signalCode === null);
    const ended = running.map((child) => once(child, "exit"));
    running.forEach((child) => child.kill("SIGKILL"));
    await Promise.all(ended);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
