// What the site page asks of the control plane. Apart from the desk's calls, so that neither page loads the other's.

import { createClient, type Client, type Transport } from "@connectrpc/connect";
import { EndpointService } from "../gen/muster/command/v1/endpoint_pb";

export interface EndpointApi {
  endpoint: Client<typeof EndpointService>;
}

export function createEndpointApi(transport: Transport): EndpointApi {
  return { endpoint: createClient(EndpointService, transport) };
}
