"""Programs of other frameworks to Caffe nets, in the order of the steps:

``from_torch`` or ``from_onnx`` reads a file into a ``program``, whose operations are called as ATen calls them;
``simplify`` removes operations without effect; ``recompose`` (with ``recompose_recurrent``, both over ``matching``)
rewrites decomposed layers as one operation; ``layout`` takes permutations out; ``assemble`` applies the rules, which
are in ``activations``, ``arithmetic``, ``extrema``, ``linear``, ``normalization``, ``places``, ``pooling``,
``recurrent``, ``resampling`` and ``shapes``, over ``builder`` and ``scalars``. ``constant_folding`` computes what
depends on weights alone.
"""
