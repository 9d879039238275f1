"""One question from Python: `python examples/search_client.py how does a master gather`."""

import asyncio
import sys

from antiphon import Client


async def main(question: str) -> None:
    async with Client() as client:
        answer = await client.search(question, limit=5)
    for hit in answer.hits:
        print(f"{hit.rank}. {hit.title}  [{hit.node}]")
    for line in answer.nodes:
        print(f"{line.node}: {line.outcome}, {line.hits} hits in {line.took_us / 1000:.1f} ms")
    print(
        "complete" if answer.complete else f"partial: {answer.coverage.answered} of {answer.coverage.expected} answered"
    )


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "how does a master gather"))
