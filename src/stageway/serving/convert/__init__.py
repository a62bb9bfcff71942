"""Make an ONNX form of a model and prove that it answers like the model: ``python -m stageway.serving.convert``.

Runs while a release is packaged, in a process of its own, since it unpickles the model. It has the packages that will
serve, and the converters beside them; a service itself needs none of this.
"""
