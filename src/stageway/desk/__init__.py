"""A model served at a developer's desk, with the packages of this Python environment; ``stageway serve`` calls it.

``choice`` says what is served, ``place`` lays it out as a service finds it, ``service`` is the process, ``watching``
makes it reload.
"""
