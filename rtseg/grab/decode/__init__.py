"""From packets to RGB images: decoding without concealed damage, colours, orientation, deinterlacing; image files."""
