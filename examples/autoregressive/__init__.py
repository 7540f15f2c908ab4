"""Models that factor p(x) over pixels in raster order."""
