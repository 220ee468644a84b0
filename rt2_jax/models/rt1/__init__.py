"""RT-1 (Brohan et al. 2022), the robot policy that RT-2 is compared with."""
