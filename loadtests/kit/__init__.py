"""What all load profiles share: content that can be checked, an origin, an edge, clients, and the page at the end."""
