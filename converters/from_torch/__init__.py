"""PyTorch programs as ``to_caffe.program``: ``archive`` reads the file; ``in_place`` removes operations in place."""
