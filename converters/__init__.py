"""Bringing data and models in and out of Caffe's formats."""
