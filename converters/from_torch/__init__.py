"""PyTorch programs to Caffe nets, in the order of the steps:

``archive`` reads the file into a ``program``; ``simplify`` removes operations in place and without effect;
``recompose`` (with ``recompose_recurrent``, both over ``matching``) rewrites decomposed layers as one operation;
``assemble`` applies the rules, which are in ``activations``, ``arithmetic``, ``extrema``, ``linear``,
``normalization``, ``pooling``, ``recurrent`` and ``shapes``, over ``builder`` and ``scalars``. ``constant_folding``
computes what depends on weights alone.
"""
