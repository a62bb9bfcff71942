"""One reusable step each, a typed function from dossier to dossier. Tasks never call each other."""
