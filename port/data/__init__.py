"""The data path: lists, images and records as endless iterators of numpy batches.

Everything here is numpy and OpenCV; nothing knows layers, nets or torch.
"""
