"""Pages for people, beside the API; nothing here is imported by a watch without them."""
