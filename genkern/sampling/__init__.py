"""Fast exact sampling of autoregressive models of images."""
