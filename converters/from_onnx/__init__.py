"""ONNX models as ``to_caffe.program``, in the order of the steps:

``model`` reads the file, and what lies beside it; ``opsets`` brings a node into the form of the newest opset; ``infer``
walks the nodes: the shape of each value, and the arrays that do not depend on the inputs; ``operations`` writes each
node as operations of ATen's names, over ``node``; ``names`` finds the module that a node comes from; ``graph`` puts
these together. Nothing in a file is run.
"""
