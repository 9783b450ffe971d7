// A network of the test's own: the test runs again in a fresh network namespace, where packets of one agent can be
// dropped without disturbing anything else on the machine. Needs root, or user namespaces; and nft.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";

const INSIDE = "MUSTER_E2E_NETWORK";

export const inOwnNetwork = process.env[INSIDE] === "1";

/** Runs a test file again inside; what it printed comes with the failure. */
export async function runInOwnNetwork(file) {
  const asRoot = process.getuid() === 0 ? [] : ["--map-root-user"];
  const script = 'ip link set lo up && exec "$0" --test --test-reporter=spec "$1"';
  // The runner's own variables would make the inner one a part of it.
  const { NODE_TEST_CONTEXT, ...env } = process.env;
  const child = spawn("unshare", ["--net", ...asRoot, "sh", "-c", script, process.execPath, file], {
    env: { ...env, [INSIDE]: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output += text));
  const [code] = await once(child, "exit");
  if (code !== 0) throw new Error(`inside the namespace (exit ${code}):\n${output}`);
  return output;
}

/** The UDP ports that a process has. */
function portsOf(pid) {
  const lines = execFileSync("ss", ["-Huanp"], { encoding: "utf8" }).split("\n");
  return lines.filter((line) => line.includes(`pid=${pid},`)).map((line) => Number(/:(\d+)\s/.exec(line)?.[1]));
}

/** Drops a share of the datagrams that the process sends, in percent. On their way in, so that the sender sees no error. */
export function lose(pid, percent) {
  const ports = portsOf(pid).join(", ");
  if (!ports) throw new Error(`process ${pid} has no UDP port`);
  const rule = `udp sport { ${ports} } numgen random mod 100 < ${percent} drop`;
  const rules = `table inet muster {\n chain lossy {\n type filter hook input priority 0;\n ${rule}\n }\n}\n`;
  execFileSync("nft", ["-f", "-"], { input: rules });
}

export function loseNothing() {
  execFileSync("nft", ["delete", "table", "inet", "muster"]);
}
