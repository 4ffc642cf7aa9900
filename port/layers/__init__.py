"""One module per Caffe layer type; ``registry`` finds them."""
