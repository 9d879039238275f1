"""Sync every system that can be synced, watch it, and say what came of it: `python everywhere.py 2026-11-01`."""

import asyncio
import sys

from antiphon import Client


async def main(since: str) -> bool:
    async with Client() as client:
        job = await client.run("sync", {"since": since}, everywhere=True)
        async for line in job:  # each line as it changes; the job goes on if nobody looks
            print(f"  {line.node}: {line.state} {line.text or ''}".rstrip())
        result = await job.result()
    for name, returned in sorted(result.results.items()):
        print(f"{name}: {returned}")
    for line in result.failed:
        print(f"{line.node}: {line.code}: {line.text}")
    for total in result.totals:
        print(f"{total.kind} of {total.field}: {total.value or {one.value: one.count for one in total.buckets}}")
    print("complete" if result.is_complete else f"not done on {', '.join(line.node for line in result.failed)}")
    return result.is_complete


if __name__ == "__main__":
    sys.exit(not asyncio.run(main(sys.argv[1])))
