// Wiring: picks the page by the address, makes the ports to the outside, mounts. No logic.

import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { mount } from "svelte";
import "./styles/tokens.css";
import "./styles/base.css";
import { lang, loadWords } from "./i18n";
import { bearer } from "./model/api";
import { browserWorld } from "./model/ports";
import { applyTheme } from "./theme";
import type { Outside } from "./outside";

function network(): Outside {
  const transport = (baseUrl: string, token: () => string) =>
    createGrpcWebTransport({ baseUrl, interceptors: [bearer(token)] });
  return {
    world: browserWorld(),
    controlPlane: (token) => transport(location.origin, token),
    relay: (baseUrl, secret) => transport(baseUrl, () => secret),
    // Fetched with the first meeting; a network that is away then is a relay that cannot be reached.
    openLeg: async (...leg) => {
      const rtc = await import("./model/media/rtc").catch(() => undefined);
      return rtc ? rtc.openRtcLeg(...leg) : { kind: "unreachable" };
    },
  };
}

async function outside(): Promise<Outside> {
  // `vite --mode mock`: the pages over a made-up district, for looking at them without a server.
  if (import.meta.env.MODE === "mock") return (await import("../test/mock/outside")).mockOutside();
  return network();
}

async function start(): Promise<void> {
  applyTheme();
  lang.subscribe((now) => document.documentElement.setAttribute("lang", now));
  const target = document.getElementById("app")!;
  const [ports, { default: Page }] = await Promise.all([
    outside(),
    location.pathname.startsWith("/join") ? import("./views/join/JoinPage.svelte") : import("./views/App.svelte"),
    loadWords(lang.get(), location.pathname.startsWith("/join")),
  ]);
  mount(Page, { target, props: { outside: ports } });
}

void start();
