// Reads the columns of data/eastlake.csv into units and sites. For tests and the mock only: no quoting, no checks.

import { create } from "@bufbuild/protobuf";
import { Access, SiteSchema, Tier, UnitSchema, type Site, type Unit } from "../../src/gen/muster/command/v1/types_pb";

const TIERS: Record<string, Tier> = { city: Tier.CITY, district: Tier.DISTRICT, street: Tier.STREET, community: Tier.COMMUNITY };
const ACCESS: Record<string, Access> = { fibre: Access.ACCESS_FIBRE, adsl: Access.ACCESS_ADSL, "4g": Access.ACCESS_4G, satellite: Access.ACCESS_SATELLITE };

export function readTree(csv: string): { units: Unit[]; sites: Site[] } {
  const units: Unit[] = [];
  const sites: Site[] = [];
  for (const line of csv.trim().split(/\r?\n/).slice(1)) {
    const [id = "", kind, tier = "", parent = "", nameZh = "", nameEn = "", lat, lon, access = "", phase = ""] = line.split(",");
    const common = { id, tier: TIERS[tier] ?? Tier.UNSPECIFIED, nameZh, nameEn, lat: Number(lat), lon: Number(lon) };
    if (kind === "unit") units.push(create(UnitSchema, { ...common, parent }));
    else sites.push(create(SiteSchema, { ...common, unit: parent, access: ACCESS[access] ?? Access.ACCESS_UNSPECIFIED, tags: phase ? [phase] : [] }));
  }
  return { units, sites };
}
