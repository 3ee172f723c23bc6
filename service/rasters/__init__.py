"""Reading GeoTIFFs and deliveries that nobody vouches for: pixels, bands, place, quality."""
