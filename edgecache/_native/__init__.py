"""The compiled hot paths. Sources are in ext/, one module each; the .pyi beside this file carry their docs."""
