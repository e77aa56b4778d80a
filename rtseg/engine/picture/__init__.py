"""How a picture becomes the network's input: squeezed to a square of S x S pixels, normalised, channels first.

planes.py         the definition, in numpy and OpenCV: `to_planes`; tests compare every other way with it
tensors.py        the same as a tensor, for engines that work in torch
interpolation.py  which source pixels make each target pixel, and with which weights
cpu_kernel.py     on the CPU kernels
torch_resize.py   in torch operations, for a GPU and its CUDA graphs
frame.cu          CUDA kernels: NV12 to RGB, resize and normalise, masks onto pictures; frame_kernels.py calls them on
                  tensors, launch.py compiles and launches them
upload.py         pinned host memory, and copies to a device that nobody waits for
recorded.py       pictures of any size for an engine that records its work: uploads and conversions, by size
device_picture.py a picture that stays on its GPU; on_gpu.py: from a hardware decoder to the drawn overlay
"""
