"""Start projects from the catalog's templates."""

from stageway.scaffold.project import Project, init, templates

__all__ = ["Project", "init", "templates"]
