"""Tries a SCIM service with scim2-tester: `scim.py URL`, the API key in the environment as SCIM_TOKEN.

Prints a line for every check, `STATUS title: reason`, and ends with 1 if any failed."""

import os
import sys
import uuid

import httpx2
from scim2_client.engines.httpx2 import SyncSCIMClient
from scim2_tester import Status, check_server, filling

# A `userName` is an e-mail address here, which no schema can say. The tester knows of the like for
# `emails.value`; everything else it makes up as it always does.
made_up = filling.get_random_example_value


def with_addresses(path):
    return f"{uuid.uuid4()}@scim.example" if str(path).endswith("userName") else made_up(path)


filling.get_random_example_value = with_addresses

headers = {"Authorization": f"Bearer {os.environ['SCIM_TOKEN']}"}
with httpx2.Client(base_url=sys.argv[1], headers=headers) as http:
    results = check_server(SyncSCIMClient(http))
failed = 0
for result in results:
    failed += result.status in (Status.ERROR, Status.CRITICAL)
    reason = " ".join((result.reason or "").split())
    print(f"{result.status.name} {result.resource_type or '-'} {result.title}: {reason}")
print(f"{len(results)} checks, {failed} failed")
sys.exit(1 if failed else 0)
