// A control plane, a relay and an agent as an engineer installs them: every port with TLS, certificates of the built-in CA.

import { execFile, spawn } from "node:child_process";
import { X509Certificate, createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { until } from "./demo.mjs";

const root = resolve(import.meta.dirname, "../../..");
const target = process.env.CARGO_TARGET_DIR ? resolve(root, process.env.CARGO_TARGET_DIR) : join(root, "target");
const program = (name) => join(target, "debug", name);
const PASSWORD = "correct horse battery staple";

export class Secure {
  static async start(site) {
    const field = new Secure(mkdtempSync(join(tmpdir(), "muster-e2e-")));
    await field.startAll(site).catch(async (error) => {
      error.message += `\n${field.output}`;
      await field.stop();
      throw error;
    });
    return field;
  }

  constructor(folder) {
    this.folder = folder;
    this.account = "duty";
    this.password = PASSWORD;
    this.children = [];
    this.output = "";
  }

  async startAll(site) {
    const told = this.run("muster-control-plane", { MUSTER_BOOTSTRAP_PASSWORD: PASSWORD }, [
      ...["--listen", "127.0.0.1:0", "--agents-listen", "127.0.0.1:0", "--data-dir", join(this.folder, "control-plane")],
      ...["--bootstrap-account", this.account, "--bootstrap-unit", "WH"],
    ]);
    const line = (begin) => () => new RegExp(`${begin}: (\\S+)`).exec(told())?.[1];
    this.url = await until("the console's address", line("console and API"));
    const agents = await until("the agents' address", line("agents and relays"));
    await this.command("site", "import", join(root, "data/eastlake.csv"));
    const relay = await this.command("relay", "enrol-token", "WH");
    this.run("muster-sfu", { MUSTER_ENROL_TOKEN: relay.token }, [
      ...["--http-listen", "127.0.0.1:0", "--control-plane", agents, "--identity-dir", join(this.folder, "relay")],
    ]);
    const agent = await this.command("site", "enrol-token", site);
    this.run("muster-edge", { MUSTER_ENROL_TOKEN: agent.token }, [
      ...["--control-plane", agents, "--identity", join(this.folder, "agent"), "--source", "testcard:180p5"],
    ]);
  }

  run(name, more, args) {
    const child = spawn(program(name), args, { env: { ...process.env, ...more }, stdio: ["ignore", "pipe", "pipe"] });
    let told = "";
    child.stdout.on("data", (text) => (told += text));
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (this.output = (this.output + text).slice(-20_000)));
    this.children.push(child);
    return () => told;
  }

  get ca() {
    return join(this.folder, "control-plane/ca/ca.pem");
  }

  /** What makes Chromium take certificates of this CA, and no others that it does not know. */
  get trust() {
    const key = new X509Certificate(readFileSync(this.ca)).publicKey.export({ type: "spki", format: "der" });
    return `--ignore-certificate-errors-spki-list=${createHash("sha256").update(key).digest("base64")}`;
  }

  /** Runs the operator's command; gives what its JSON says. */
  async command(...words) {
    const access = ["--server", this.url, "--ca", this.ca, "--account", this.account, "-o", "json"];
    const env = { ...process.env, MUSTER_PASSWORD: PASSWORD };
    const { stdout } = await promisify(execFile)(program("muster"), [...words, ...access], { env, timeout: 30_000 });
    return JSON.parse(stdout.trim().split("\n").at(-1));
  }

  async stop() {
    for (const child of this.children.reverse()) {
      if (child.exitCode !== null) continue;
      child.kill("SIGTERM");
      const late = setTimeout(() => child.kill("SIGKILL"), 5_000);
      await once(child, "exit");
      clearTimeout(late);
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
