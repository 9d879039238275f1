"""A blog as a node: `antiphon up` in one terminal, `python examples/blog_node.py` in another."""

from antiphon import Hit, Node, Query

node = Node("blog", description="our articles", topics=["news"])
ARTICLES = {
    "hello": "Hello federation: one question goes to every system, and one ranked answer comes back.",
    "outage": "What an outage taught us: an answer that lacks a system has to say so.",
}


@node.search
def search(query: Query) -> list[Hit]:
    found = [name for name, text in ARTICLES.items() if any(term in text.lower() for term in query.terms)]
    return [Hit(id=name, title=name.title(), text=ARTICLES[name]) for name in found]


@node.action("count-words", effect="read", aggregates={"words": "sum"})
def count_words() -> dict[str, int]:
    return {"words": sum(len(text.split()) for text in ARTICLES.values())}


if __name__ == "__main__":
    node.run()
