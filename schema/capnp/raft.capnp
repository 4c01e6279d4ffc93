# The group of coordinators: its log, votes, snapshots, and the calls between members.
@0xe249df4c891a8efd;

interface RaftPeer {
  # A member as the others see it.
}
