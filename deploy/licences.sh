#!/bin/sh
# Reads a bill of materials and prints a line a module: licence, name, version.
exec python3 -c '
import json, sys
for c in sorted(json.load(sys.stdin)["components"], key=lambda c: c["name"]):
    found = [l["license"].get("id", "?") for l in c.get("evidence", {}).get("licenses", c.get("licenses", []))]
    print("%-16s %s %s" % (" or ".join(found) or "?", c["name"], c.get("version", "")))
'
